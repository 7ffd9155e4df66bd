"""What a caption of a scene says, as numbers: to leave something out, get it wrong, or check it.

A caption is a row of seven: side, colour and shape of the top object, the same of the bottom
object, and the ground's texture, each an index (`COUNTS` values) or `ANY` where nothing is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xaikit.images import drawing, scenes

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64
    from numpy import ndarray

ANY = -1
COUNTS = (2, len(scenes.COLOURS), len(drawing.SHAPES)) * 2 + (len(drawing.TEXTURES),)


def says(factors: scenes.Factors) -> Int64[ndarray, "scene 7"]:
    """What the full caption of each scene says."""
    columns = []
    for half in (0, 1):
        columns += [factors.quadrant[:, half] % 2, factors.colour[:, half], factors.shape[:, half]]
    return np.stack([*columns, factors.texture], axis=1)


def words(said: Int64[ndarray, " 7"]) -> str:
    """The caption that says this; of a full one, the same as `scenes.captions`."""
    things = []
    for half, name in enumerate(("top", "bottom")):
        side, colour, shape = said[3 * half : 3 * half + 3]
        if shape != ANY:
            where = name if side == ANY else scenes.QUADRANTS[2 * half + side]
            things.append(f"{where} {scenes.COLOURS[colour]} {drawing.SHAPES[shape]}")
    ground = "" if said[6] == ANY else f" on {drawing.TEXTURES[said[6]]} ground"
    return " and ".join(things) + ground


def partial(
    said: Int64[ndarray, "caption 7"], rng: np.random.Generator
) -> Int64[ndarray, "caption 7"]:
    """Leave out one object and the ground, and half of the time the side."""
    said = said.copy()
    rows = np.arange(len(said))
    dropped = 3 * rng.integers(0, 2, len(said))
    for offset in range(3):
        said[rows, dropped + offset] = ANY
    no_side = rng.random(len(said)) < 0.5
    said[no_side, 0] = said[no_side, 3] = ANY
    said[:, 6] = ANY
    return said


def wrong(
    said: Int64[ndarray, "caption 7"], rng: np.random.Generator
) -> Int64[ndarray, "caption 7"]:
    """Change one factor of each full caption to another value."""
    said = said.copy()
    rows = np.arange(len(said))
    place = rng.integers(0, len(COUNTS), len(said))
    counts = np.array(COUNTS)[place]
    step = 1 + rng.integers(0, 1 << 30, len(said)) % (counts - 1)
    said[rows, place] = (said[rows, place] + step) % counts
    return said


def true_of(
    said: Int64[ndarray, "caption 7"], truth: Int64[ndarray, "scene 7"]
) -> Bool[ndarray, "scene caption"]:
    """Whether each caption is true of each scene, whose full captions say `truth`."""
    true: np.ndarray = ((said[None] == truth[:, None]) | (said[None] == ANY)).all(-1)
    return true
