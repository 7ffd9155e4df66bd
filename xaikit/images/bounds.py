"""What one picture may cost to decode, in time and memory, by what its file declares."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

MOST_SCANS = 100
"""Of a progressive JPEG; encoders make about ten."""

_MOST_SCANNED = 2**30
_MOST_IN_PYTHON = 2**22
_MOST_AS_TEXT = 2**20
_MOST_JPEG_2000 = 2**25
_BYTES_A_PIXEL = 10
_MOST_BYTES = 2**30
_ICON = b"\0\0\1\0"
_PNG = b"\x89PNG\r\n\x1a\n"
# Inside a scan, FF is followed by 00, or by the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def too_costly(data: bytes) -> str | None:
    """Why a file should not even be opened, in a few words; None where nothing speaks against it.

    Scans of a JPEG are decoded one over the other, each at the price of a picture. PIL decodes an
    icon's picture when it opens it.
    """
    if data.startswith(_ICON):
        return next(filter(None, (_too_many(*size) for size in _icon_sizes(data))), None)
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    scans, pixels = _scans(data)
    if scans > MOST_SCANS or (scans > 1 and scans * pixels > _MOST_SCANNED):
        return f"{scans:,} scans of {pixels:,} pixels are too many"
    return None


def too_large(image: Image.Image) -> str | None:
    """Why an opened picture should not be decoded, in a few words; None where it may be."""
    if why := _too_many(image.width, image.height):
        return why
    pixels = image.width * image.height
    if image.format == "JPEG2000" and pixels > _MOST_JPEG_2000:
        return f"{image.width} x {image.height} pixels are too many for JPEG 2000"
    codecs = {tile[0] for tile in getattr(image, "tile", [])}
    most = _MOST_AS_TEXT if "ppm_plain" in codecs else _MOST_IN_PYTHON
    if pixels > most and codecs & set(Image.DECODERS):
        return f"{image.width} x {image.height} pixels are too many for this form of {image.format}"
    return None


def _too_many(width: int, height: int) -> str | None:
    limit = Image.MAX_IMAGE_PIXELS
    # PIL itself only warns up to twice this limit.
    if limit is not None and width * height > limit:
        return f"{width} x {height} pixels are too many"
    return None


def _scans(data: bytes) -> tuple[int, int]:
    """Scans of the first picture in a JPEG, up to one too many, and its declared pixels."""
    scans, pixels, start = 0, 0, 2
    while scans <= MOST_SCANS and (found := _MARKER.search(data, start)):
        marker, start = data[found.end() - 1], found.end()
        if marker == _JPEG_END:
            break
        if marker in _JPEG_FRAMES:
            height, width = (int.from_bytes(data[start + i : start + i + 2]) for i in (3, 5))
            pixels = max(pixels, height * width)
        scans += marker == _JPEG_SCAN
        if marker > 0x01:
            start += max(2, int.from_bytes(data[start : start + 2]))
    return scans, pixels


def _icon_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Sizes of the pictures in an icon, which are not those that its own table declares."""
    for i in range(int.from_bytes(data[4:6], "little")):
        entry = data[6 + 16 * i : 22 + 16 * i]
        start = int.from_bytes(entry[12:16], "little")
        order: str = "little"
        place = start + 4
        if data[start : start + 8] == _PNG:
            order, place = "big", start + 16
        width, height = (
            int.from_bytes(data[place + j : place + j + 4], order)  # type: ignore[arg-type]
            for j in (0, 4)
        )
        yield width, height


class Room:
    """Memory that the pictures being decoded share; large ones wait for each other.

    Parameters
    ----------
    total : int
        Bytes. A picture that needs more is decoded alone.
    """

    def __init__(self, total: int = _MOST_BYTES) -> None:
        self._total = total
        self._used = 0
        self._changed = threading.Condition()
        self._own = threading.local()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until a picture of so many pixels fits, and hold its room.

        Inside `kept`, it is held to the end of that.
        """
        needed = pixels * _BYTES_A_PIXEL
        kept: list[int] | None = getattr(self._own, "kept", None)
        with self._changed:
            held = sum(kept or [])
            # A thread never waits for what it holds itself.
            self._changed.wait_for(lambda: self._used <= held or self._used + needed <= self._total)
            self._used += needed
        if kept is not None:
            kept.append(needed)
            yield
            return
        try:
            yield
        finally:
            self._release(needed)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Hold the room of every picture that this thread decodes until the end of the block."""
        outer: list[int] | None = getattr(self._own, "kept", None)
        self._own.kept = []
        try:
            yield
        finally:
            self._release(sum(self._own.kept))
            self._own.kept = outer

    def _release(self, bytes_: int) -> None:
        with self._changed:
            self._used -= bytes_
            self._changed.notify_all()


ROOM = Room()
"""Of this process."""
