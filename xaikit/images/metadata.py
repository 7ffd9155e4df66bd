"""Image files without what is said about the picture: only what is needed to draw it.

Broken or oversized metadata makes a decoder refuse a file whose pixels are whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_WANTED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_SCAN = 0xDA
_JPEG_WANTED_APPS = (0xE0, 0xEE)
_WEBP_METADATA = (b"ICCP", b"EXIF", b"XMP ")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04


def without_metadata(data: bytes) -> bytes | None:
    """The same picture without its metadata; None where there is none to leave out."""
    if data.startswith(_PNG):
        kept = _PNG + b"".join(_png_chunks(data))
    elif data.startswith(b"\xff\xd8\xff"):
        kept = b"\xff\xd8" + b"".join(_jpeg_segments(data))
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(data))
        kept = b"RIFF" + len(body).to_bytes(4, "little") + body
    else:
        return None
    return kept if len(kept) < len(data) else None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    start = len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        whole = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
        # Which way is up is metadata as well, but changes what is seen.
        if kind in _PNG_WANTED or (kind == b"eXIf" and whole):
            yield data[start:end]
        start = end


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != _JPEG_SCAN:
        marker = data[start + 1]
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        is_app = 0xE0 <= marker <= 0xEF
        if marker != 0xFE and (not is_app or marker in _JPEG_WANTED_APPS):
            yield data[start:end]
        start = end
    yield data[start:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    start = 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        end = start + 8 + size + size % 2
        kind, chunk = data[start : start + 4], data[start:end]
        if kind == b"VP8X" and size:
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA_FLAGS]) + chunk[9:]
        if kind not in _WEBP_METADATA:
            yield chunk
        start = end
