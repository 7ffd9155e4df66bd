"""Hostile images: cut, changed, oversized, many scans, broken metadata, torn archives."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from trust.kit import Ended, ended

from xaikit.images.decoding import decode
from xaikit.images.webdataset import open_webdataset

_PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
_CHECKED = ("PNG",)
"""Formats whose own checksums tell every change of a pixel."""


def _encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    _PICTURE.save(file, form, **options)
    return file.getvalue()


WHOLE: dict[str, bytes] = {
    "PNG": _encoded("PNG"),
    "JPEG": _encoded("JPEG"),
    "progressive JPEG": _encoded("JPEG", progressive=True),
    "GIF": _encoded("GIF"),
    "BMP": _encoded("BMP"),
    "TIFF": _encoded("TIFF"),
    "compressed TIFF": _encoded("TIFF", compression="tiff_lzw"),
    "WEBP": _encoded("WEBP", lossless=True),
    "PPM": _encoded("PPM"),
    "TGA": _encoded("TGA"),
    "ICO": _encoded("ICO", sizes=[(16, 16)]),
    "JPEG 2000": _encoded("JPEG2000"),
}


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Try so many files, of all kinds in turn."""
    rng, failures = random.Random(seed), []
    kinds = [_cut, _flipped, _declared, _spliced, _scans, _metadata, _noise, _archive]
    for case in range(cases):
        what, found = kinds[(seed + case) % len(kinds)](rng)
        if found.failure:
            failures.append(f"{what}: {found.failure}")
    return cases, failures


def _decoded(data: bytes) -> Ended:
    return ended(lambda: np.asarray(decode(io.BytesIO(data), "x")))


def _same_or_said(data: bytes, name: str) -> Ended:
    """The whole file's pixels, or a reason."""
    found = _decoded(data)
    if found.value is not None and not np.array_equal(found.value, _decoded(WHOLE[name]).value):
        return Ended(failure="other pixels without a word")
    return found


def _cut(rng: random.Random) -> tuple[str, Ended]:
    name = rng.choice(list(WHOLE))
    at = rng.randrange(len(WHOLE[name]))
    return f"{name} cut at {at}", _same_or_said(WHOLE[name][:at], name)


def _flipped(rng: random.Random) -> tuple[str, Ended]:
    name = rng.choice(list(WHOLE))
    data = bytearray(WHOLE[name])
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 8, 64)))]
    for at in places:
        data[at] ^= 1 << rng.randrange(8)
    look = _same_or_said(bytes(data), name) if name in _CHECKED else _decoded(bytes(data))
    return f"{name} changed at {places[:3]}", look


def _declared(rng: random.Random) -> tuple[str, Ended]:
    """A size far from that of the pixels."""
    wide, high = (rng.choice((0, 1, 31, 33, 9000, 65535, 2**31 - 1)) for _ in range(2))
    data = bytearray(WHOLE["PNG"])
    data[16:24] = struct.pack(">II", wide, high)
    data[24] = rng.choice((1, 8, 16))
    data[25] = rng.choice((0, 2, 3, 4, 6))
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    gif = WHOLE["GIF"]
    made = {
        "PNG": bytes(data),
        "PPM": b"P6 %d %d 65535 " % (wide, high) + bytes(300),
        "GIF": gif[:6] + struct.pack("<HH", wide & 65535, high & 65535) + gif[10:],
        "BMP": WHOLE["BMP"][:18] + struct.pack("<ii", wide, high) + WHOLE["BMP"][26:],
    }
    name = rng.choice(list(made))
    return f"{name} of {wide} by {high}", _decoded(made[name])


def _spliced(rng: random.Random) -> tuple[str, Ended]:
    one, other = rng.choice(list(WHOLE)), rng.choice(list(WHOLE))
    at = rng.randrange(64)
    return f"{one} that goes on as {other}", _decoded(WHOLE[one][:at] + WHOLE[other][at:])


def _scans(rng: random.Random) -> tuple[str, Ended]:
    data, count = WHOLE["progressive JPEG"], rng.choice((2, 50, 500, 5000))
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * count + data[-2:]
    if rng.random() < 0.5:
        # A large picture by its header.
        at = many.index(b"\xff\xc2") + 5
        many = many[:at] + struct.pack(">HH", 6000, 8000) + many[at + 4 :]
    return f"JPEG of {count} scans", _decoded(many)


def _metadata(rng: random.Random) -> tuple[str, Ended]:
    """What is beside the pixels is broken: they are themselves."""
    kind = rng.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"gAMA"))
    body = rng.randbytes(rng.randrange(200))
    if rng.random() < 0.2:
        body = b"k\0\0" + zlib.compress(bytes(rng.choice((10**6, 10**8))))
    checksum = zlib.crc32(kind + body) if rng.random() < 0.5 else 1
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
    data = WHOLE["PNG"][:33] + chunk + WHOLE["PNG"][33:]
    return f"PNG with a broken {kind.decode()}", _same_or_said(data, "PNG")


def _noise(rng: random.Random) -> tuple[str, Ended]:
    start = rng.choice([data[:8] for data in WHOLE.values()] + [b""])
    return f"noise after {start!r}", _decoded(start + rng.randbytes(rng.randrange(3000)))


def _archive(rng: random.Random) -> tuple[str, Ended]:
    """A shard of three pictures cut at any byte: what is left out is said."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for i in range(3):
            entry = tarfile.TarInfo(f"{i}.png")
            entry.size = len(WHOLE["PNG"])
            tar.addfile(entry, io.BytesIO(WHOLE["PNG"]))
    end = 3 * (512 + -(-len(WHOLE["PNG"]) // 512) * 512)
    at = rng.choice((rng.randrange(end), 512 * rng.randrange(end // 512)))
    found = ended(_reader(file.getvalue()[:at]))
    if found.value is not None and found.value[0] == 3 and not found.value[1]:
        found = Ended(failure="all three pictures of a torn shard")
    elif found.value is not None and found.value[0] < 3 and not found.value[1]:
        found = Ended(failure=f"{found.value[0]} of 3 pictures without a word")
    return f"shard cut at {at} of {end}", found


def _reader(data: bytes) -> Callable[[], tuple[int, str]]:
    def read() -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.tar"
            path.write_bytes(data)
            source = open_webdataset(str(path))
            said, read = str(getattr(source, "left_out", "")), 0
            for i in range(len(source)):
                one = ended(lambda: source.load(i))  # noqa: B023
                if one.failure:
                    raise AssertionError(one.failure)
                said += one.refused
                read += one.value is not None
            return read, said

    return read
