"""From the bytes of an image file to an 8-bit RGB picture, or one short reason why not."""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

from PIL import Image, UnidentifiedImageError

from xaikit.errors import XaikitError
from xaikit.images.bounds import ROOM, too_costly, too_large
from xaikit.images.colour import to_rgb
from xaikit.images.metadata import without_metadata
from xaikit.images.quiet_tiff import quiet_libtiff

# A closed list: among what else PIL opens, EPS would start Ghostscript.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF"),
    *("TGA", "ICO", "HEIF"),
)
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
    "TGA": (".tga",),
    "ICO": (".ico",),
    "HEIF": (".heic", ".heif", ".hif"),
}
MOST_BYTES = 2**30
"""Of one image file."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_quiet_lock = threading.Lock()
_quiet_users = 0

# PIL logs some damage as an error, which Python prints where nobody has set up logging.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class BadImage(XaikitError):  # noqa: N818 (it names an image)
    """An image that cannot be used.

    Attributes
    ----------
    id : str
        The image's id in its source.
    reason : str
        A few words, such as ``empty file``.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"{id}: {reason}")
        self.id = id
        self.reason = reason


def read_image(path: Path, id: str) -> tuple[bytes, os.stat_result]:
    """The bytes of an image file, and its state just before they were read.

    Raises
    ------
    BadImage
        It is a folder, a pipe, larger than any image should be, or cannot be read.
    """
    try:
        # Asked before opening it: opening a named pipe would wait for its writer.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(id, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        if status.st_size > MOST_BYTES:
            raise BadImage(id, f"a file of {status.st_size / 2**30:,.1f} GiB")
        return path.read_bytes(), status
    except (OSError, ValueError) as error:
        raise BadImage(id, _words(error)) from error


def decode_path(path: Path, id: str) -> Image.Image:
    """`decode` a file; one that `read_image` cannot read is a bad image too."""
    return decode(io.BytesIO(read_image(path, id)[0]), id)


def decode(file: IO[bytes], id: str) -> Image.Image:
    """Decode the first frame of an image file.

    EXIF orientation is applied; transparency is laid on white; CMYK, palette and grey become
    RGB, and deeper pixels are scaled to 8 bits rather than clipped (see `to_rgb`). Colour
    profiles are ignored, as torchvision does. A file whose metadata alone is broken is decoded
    without it.

    Parameters
    ----------
    file : binary file, at its start
    id : str
        For the message.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    BadImage
        The file is empty, truncated, damaged, of no known format, has more pixels than
        ``PIL.Image.MAX_IMAGE_PIXELS``, or would take too long to decode.
    """
    data = file.read()
    if not data:
        raise BadImage(id, "empty file")
    if why := too_costly(data):
        raise BadImage(id, why)
    with _quiet_pil():
        try:
            return _decoded(data, id)
        except BadImage:
            raise
        # PIL's decoders leak every kind of exception on damaged files.
        except Exception as error:
            plain = without_metadata(data)
            if plain is None:
                raise BadImage(id, _reason(error)) from error
        try:
            return _decoded(plain, id)
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(id, _reason(error)) from error


def _decoded(data: bytes, id: str) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=_formats())
    if why := too_large(image):
        raise BadImage(id, why)
    if image.format == "TIFF":
        quiet_libtiff()
    with ROOM.of(image.width * image.height):
        image.load()
        return to_rgb(_upright(image))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format, or damaged at its start"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    return _words(error)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@cache
def _formats() -> list[str]:
    Image.init()
    with suppress(Exception):
        # Optional, and it registers what it opens.
        import pillow_heif

        pillow_heif.register_heif_opener()
    if "AVIF" not in Image.OPEN:
        with suppress(Exception):
            # Optional, and registers what it opens as it is imported.
            import pillow_avif  # noqa: F401
    return [name for name in _FORMATS if name in Image.OPEN]


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in small letters, of the files that can be read here."""
    readable = {suffix for format in _formats() for suffix in _SUFFIXES.get(format, ())}
    return frozenset(readable)


@contextmanager
def _quiet_pil() -> Iterator[None]:
    # warnings.catch_warnings saves and restores the filters of the whole process, which threads
    # would do to each other; this adds one filter and takes the same one out.
    global _quiet_users
    filters = cast("list[Any]", warnings.filters)
    with _quiet_lock:
        _quiet_users += 1
        if _QUIET not in filters:
            filters.insert(0, _QUIET)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            filters = cast("list[Any]", warnings.filters)
            if not _quiet_users and _QUIET in filters:
                filters.remove(_QUIET)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
        turn = _UPRIGHT.get(cast(int, orientation))
    # The pixels are fine: damaged metadata makes no bad image.
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)
