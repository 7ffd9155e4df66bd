"""Pictures of every mode to 8-bit RGB, a band of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

_BAND_PIXELS = 2**22


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB: transparency on white, deeper pixels scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    picture = Image.new("RGB", image.size)
    for top, bottom in _bands(image.height, image.width):
        band = image.crop((0, top, image.width, bottom)).convert("RGBA")
        ground = Image.new("RGBA", band.size, "white")
        ground.alpha_composite(band)
        picture.paste(ground.convert("RGB"), (0, top))
    return picture


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(1, _BAND_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale grey values to 0-255.

    16-bit values (and mode I within 0-65535) are divided by 257. Floats within 0-1 are
    multiplied by 255, within 0-255 rounded. Any other range is stretched from its minimum to
    its maximum, since the file does not say what is white.
    """
    low, high = float(values.min()), float(values.max())
    # Of NaN, the minimum and the maximum are NaN as well.
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels that are not finite numbers")
    if mode == "F":
        white = next((top for top in (1.0, 255.0) if low >= 0 and high <= top), None)
    else:
        white = 65535.0 if low >= 0 and high <= 65535 else None
    start = 0.0
    if white is None:
        start, white = low, max(high - low, 1e-300)
    grey = np.empty(values.shape, dtype=np.uint8)
    for top, bottom in _bands(*values.shape):
        band = values[top:bottom].astype(np.float64) - start
        grey[top:bottom] = np.rint(band * (255 / white)).astype(np.uint8)
    return grey
