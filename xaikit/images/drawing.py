"""How the demo scenes are drawn: counted random numbers, grounds and soft-edged shapes.

Everything works on a batch of scenes at once, with exact arithmetic where it can, so that a
scene looks the same whatever machine and numpy version draws it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64, UInt64
    from numpy import ndarray

SIZE = 64
HALF = SIZE // 2
SHAPES = ("circle", "square", "triangle", "cross", "ring")
TEXTURES = ("plain", "striped", "checked", "speckled")

_PIXEL_DRAWS = 1 << 20


def _mix(bits: ndarray) -> ndarray:
    # splitmix64: numpy's own generators promise no fixed stream between versions.
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: ndarray = bits ^ (bits >> np.uint64(31))
    return mixed


def scene_keys(seed: int, indices: ndarray) -> UInt64[ndarray, " scene"]:
    """One 64-bit key per scene; all that is drawn for the scene follows from it."""
    step = np.uint64(0x9E3779B97F4A7C15)
    start = _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64) + step)
    return _mix(start + (indices.astype(np.uint64) + np.uint64(1)) * step)


def _bits(keys: ndarray, count: int, start: int) -> ndarray:
    step = np.uint64(0x9E3779B97F4A7C15)
    return _mix(keys[:, None] + np.arange(start + 1, start + count + 1, dtype=np.uint64) * step)


def uniform_draws(keys: ndarray, count: int, start: int = 0) -> Float32[ndarray, "scene draw"]:
    """Draws `start` to `start + count` of every scene's stream, each in [0, 1)."""
    high = (_bits(keys, count, start) >> np.uint64(40)).astype(np.float32)
    return high * np.float32(2.0**-24)


def pick(uniform: ndarray, count: int) -> Int64[ndarray, "..."]:
    """Uniform draws to indices 0 to `count` - 1."""
    return np.minimum((uniform * count).astype(np.int64), count - 1)


def grain(keys: ndarray) -> Float32[ndarray, "scene row column channel"]:
    """Pixel noise: two bytes of one draw per channel, whose sum has a triangular density."""
    words = _bits(keys, SIZE * SIZE * 3 // 4, _PIXEL_DRAWS).astype("<u8").view(np.uint8)
    pairs = words.reshape(len(keys), SIZE, SIZE, 3, 2)
    total = pairs[..., 0].astype(np.float32) + pairs[..., 1]
    return total * np.float32(0.06 / 255) - np.float32(0.06)


def ground(
    keys: ndarray, texture: ndarray, uniform: ndarray
) -> Float32[ndarray, "scene row column 3"]:
    """A tinted ground: plain, stripes of a random direction, checks, or speckles."""
    tint = 0.25 + 0.25 * uniform[:, :1] + 0.16 * (uniform[:, 1:4] - 0.5)
    depth = 0.14 + 0.10 * uniform[:, 4]
    period = 4 + 4 * uniform[:, 5][:, None, None]
    phase = uniform[:, 6][:, None, None]
    slope = 2 * uniform[:, 7][:, None, None] - 1
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    steep = uniform[:, 8][:, None, None] < 0.5
    along = np.where(steep, row + slope * column, column + slope * row) / period + phase
    tile = np.floor(row / period + phase) + np.floor(column / period + phase)
    pattern = np.zeros(along.shape, dtype=np.float32)
    for name, values in (("striped", along % 1 < 0.5), ("checked", tile % 2 < 1)):
        chosen = texture == TEXTURES.index(name)
        pattern[chosen] = values[chosen].astype(np.float32) - 0.5
    chosen = texture == TEXTURES.index("speckled")
    cells = uniform_draws(keys[chosen], SIZE * SIZE // 4, start=2 * _PIXEL_DRAWS) < 0.18
    dots = cells.reshape(-1, SIZE // 2, SIZE // 2).repeat(2, axis=1).repeat(2, axis=2)
    pattern[chosen] = dots.astype(np.float32)
    return (tint[:, None, None] + (depth[:, None, None] * pattern)[..., None]).astype(np.float32)


def coverage(shape: ndarray, uniform: ndarray) -> Float32[ndarray, "scene 2 row column"]:
    """How much of each pixel of its quadrant an object covers, 0 to 1, with soft edges."""
    radius = 7.5 + 3.5 * uniform[..., 0]
    room = HALF / 2 - 1.15 * radius
    middle = HALF / 2 + room[..., None] * (2 * uniform[..., 1:3] - 1)
    # The half-angle form of sine and cosine is exact arithmetic, the same on every machine.
    turn = 0.16 * (uniform[..., 3] - 0.5)
    cosine, sine = (1 - turn**2) / (1 + turn**2), 2 * turn / (1 + turn**2)
    row, column = np.mgrid[0:HALF, 0:HALF].astype(np.float32) + 0.5
    y = row - middle[..., 0, None, None]
    x = column - middle[..., 1, None, None]
    cosine, sine = cosine[..., None, None], sine[..., None, None]
    x, y = cosine * x + sine * y, cosine * y - sine * x
    outside = np.empty(x.shape, dtype=np.float32)
    for number, name in enumerate(SHAPES):
        chosen = shape == number
        outside[chosen] = _distance(name, x[chosen], y[chosen], radius[chosen][:, None, None])
    return np.clip(0.5 - outside, 0, 1)


def _distance(name: str, x: ndarray, y: ndarray, radius: ndarray) -> ndarray:
    """Distance in pixels from a shape's edge, negative inside (never less than the true one)."""
    found: ndarray
    if name == "circle":
        found = np.sqrt(x * x + y * y) - radius
    elif name == "ring":
        found = np.abs(np.sqrt(x * x + y * y) - 0.76 * radius) - 0.24 * radius
    elif name == "square":
        found = np.maximum(np.abs(x), np.abs(y)) - 0.82 * radius
    elif name == "triangle":
        found = np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.575 * radius
    else:
        wide, high = np.abs(x), np.abs(y)
        upright = np.maximum(wide - 0.3 * radius, high - radius)
        found = np.minimum(upright, np.maximum(wide - radius, high - 0.3 * radius))
    return found
