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
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from xaikit.errors import XaikitError

# A closed list: among what else PIL opens, EPS would start Ghostscript.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF"),
    *("TGA", "ICO"),
)
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
    RGB, and deeper pixels are scaled to 8 bits rather than clipped (see `_eight_bits`).
    Colour profiles are ignored, as torchvision does.

    Parameters
    ----------
    file : binary file
        Open for reading and seekable.
    id : str
        Names the image in errors.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, fully loaded, independent of `file`.

    Raises
    ------
    BadImage
        The file is empty, truncated, damaged, of no known format, or has more pixels than
        ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if not file.read(1):
        raise BadImage(id, "empty file")
    file.seek(0)
    with _quiet_pil():
        try:
            image = Image.open(file, formats=_formats())
            if _too_many_pixels(image.size):
                raise BadImage(id, f"{image.width} x {image.height} pixels are too many")
            image.load()
            return _rgb(_upright(image))
        except BadImage:
            raise
        except UnidentifiedImageError as error:
            raise BadImage(id, "not an image of a known format, or damaged at its start") from error
        except Image.DecompressionBombError as error:
            raise BadImage(id, "too many pixels") from error
        # PIL's decoders leak every kind of exception on damaged files.
        except Exception as error:
            raise BadImage(id, _words(error)) from error


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _too_many_pixels(size: tuple[int, int]) -> bool:
    # PIL itself only warns up to twice this limit.
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and size[0] * size[1] > limit


@contextmanager
def _quiet_pil() -> Iterator[None]:
    # warnings.catch_warnings saves and restores the filters of the whole process, which threads
    # would do to each other; this adds one filter and takes the same one out.
    global _quiet_users
    filters = cast(list, warnings.filters)
    with _quiet_lock:
        _quiet_users += 1
        if _QUIET not in filters:
            filters.insert(0, _QUIET)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            filters = cast(list, warnings.filters)
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


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        picture = Image.new("RGBA", image.size, "white")
        picture.alpha_composite(image.convert("RGBA"))
        return picture.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale grey values to 0-255.

    16-bit values (and mode I within 0-65535) are divided by 257. Floats within 0-1 are
    multiplied by 255, within 0-255 rounded. Any other range is stretched from its minimum to
    its maximum, since the file does not say what is white.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        white = next((top for top in (1.0, 255.0) if low >= 0 and high <= top), None)
    else:
        white = 65535.0 if low >= 0 and high <= 65535 else None
    if white is None:
        values, white = values - low, max(high - low, 1e-300)
    return np.rint(values * (255 / white)).astype(np.uint8)
