"""The demo's images: scenes drawn by code, with everything that is in them known.

A scene is a 64 x 64 picture on a textured ground with two objects, one in the top half and one
in the bottom half. What is drawn follows from ``(seed, index)`` alone, so the scenes need no
files, and each 8 x 8 patch has known factors: what a cluster of patches means can be scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.digests import digest_of
from xaikit.images.drawing import (
    HALF,
    SHAPES,
    SIZE,
    TEXTURES,
    coverage,
    grain,
    ground,
    pick,
    scene_keys,
    uniform_draws,
)

if TYPE_CHECKING:
    from jaxtyping import Float32, Int8, Int64, UInt8
    from numpy import ndarray

PATCH = 8
GRID = SIZE // PATCH
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
BACKGROUND = -1
OBJECT_COVERAGE = 0.25

_PAINT = np.array(
    [
        (0.88, 0.12, 0.12),
        (0.12, 0.72, 0.16),
        (0.14, 0.22, 0.90),
        (0.94, 0.86, 0.12),
        (0.62, 0.14, 0.74),
        (0.14, 0.84, 0.88),
    ],
    dtype=np.float32,
)
_SCALARS = 32


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What is in a batch of scenes. Column 0 is the top object, column 1 the bottom one.

    Attributes
    ----------
    quadrant, shape, colour : int64 array ``[B, 2]``
        Indices into `QUADRANTS`, `SHAPES` and `COLOURS`.
    texture : int64 array ``[B]``
        Index into `TEXTURES`.
    patch_shape, patch_colour : int8 array ``[B, 64]``
        The same indices for every patch in raster order, `BACKGROUND` (-1) where no object
        covers at least `OBJECT_COVERAGE` of the patch.
    patch_coverage : float32 array ``[B, 64]``
        Share of the patch that an object covers, 0 to 1.
    """

    quadrant: Int64[ndarray, "scene 2"]
    shape: Int64[ndarray, "scene 2"]
    colour: Int64[ndarray, "scene 2"]
    texture: Int64[ndarray, " scene"]
    patch_shape: Int8[ndarray, "scene patch"]
    patch_colour: Int8[ndarray, "scene patch"]
    patch_coverage: Float32[ndarray, "scene patch"]

    def __len__(self) -> int:
        return len(self.texture)

    @property
    def patch_quadrant(self) -> Int8[ndarray, "scene patch"]:
        """Index into `QUADRANTS` of every patch, whatever is in it."""
        half = np.arange(GRID) // (GRID // 2)
        one = (2 * half[:, None] + half).astype(np.int8).reshape(-1)
        return np.broadcast_to(one, (len(self), one.size))

    @property
    def patch_texture(self) -> Int8[ndarray, "scene patch"]:
        """Index into `TEXTURES` of the scene of every patch."""
        return np.repeat(self.texture.astype(np.int8)[:, None], GRID * GRID, axis=1)

    @property
    def patch_object(self) -> Int8[ndarray, "scene patch"]:
        """`BACKGROUND`, or ``shape * len(COLOURS) + colour`` of the object in the patch."""
        kind = self.patch_shape * np.int8(len(COLOURS)) + self.patch_colour
        return np.where(self.patch_shape == BACKGROUND, np.int8(BACKGROUND), kind)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene.

    Attributes
    ----------
    pixels : uint8 array ``[64, 64, 3]``
    caption : str
        For example ``top left red circle and bottom right blue square on striped ground``.
    factors : Factors
        A batch of one.
    """

    pixels: UInt8[ndarray, "row column channel"]
    caption: str
    factors: Factors

    def image(self) -> Image.Image:
        """The scene as an RGB picture."""
        return Image.fromarray(self.pixels)


def draw(seed: int, index: int) -> Scene:
    """Draw one scene; equal arguments give equal scenes."""
    pixels, factors = draw_batch(seed, [index])
    return Scene(pixels=pixels[0], caption=captions(factors)[0], factors=factors)


FACTORS = ("colour", "shape", "place", "texture")
"""What `draw_batch` can change of a scene: of the top object, or the ground's texture."""


def draw_batch(
    seed: int, indices: Sequence[int] | Int64[ndarray, " scene"], change: str | None = None
) -> tuple[UInt8[ndarray, "scene row column channel"], Factors]:
    """Draw the scenes of several indices at once: ``[B, 64, 64, 3]`` uint8, and their factors.

    Parameters
    ----------
    seed : int
    indices : sequence of int
    change : str, optional
        One of `FACTORS`: draw counterfactual scenes, with the next value of this factor (for
        ``place`` the other side) and everything else as it is.
    """
    plan = _plan(seed, indices, change)
    factors = plan.factors
    canvas = ground(plan.keys, factors.texture, plan.uniform[:, 20:32])
    jitter = uniform_draws(plan.keys, 6, start=_SCALARS).reshape(-1, 2, 3) - 0.5
    paint = _PAINT[factors.colour] + 0.16 * jitter
    quarters = canvas.reshape(-1, 2, HALF, 2, HALF, 3)
    rows = np.arange(len(factors))
    for half in (0, 1):
        place = (rows, half, slice(None), factors.quadrant[:, half] % 2)
        under = quarters[place]
        mask = plan.mask[:, half, ..., None]
        quarters[place] = under + (paint[:, half, None, None] - under) * mask
    canvas += grain(plan.keys)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), factors


def factors_of(seed: int, indices: Sequence[int] | Int64[ndarray, " scene"]) -> Factors:
    """What `draw_batch` would draw, without drawing it."""
    return _plan(seed, indices).factors


def captions(factors: Factors) -> list[str]:
    """One full caption per scene; two scenes share a caption only if they share every factor."""
    said = []
    for quadrant, shape, colour, texture in zip(
        factors.quadrant, factors.shape, factors.colour, factors.texture, strict=True
    ):
        things = [
            f"{QUADRANTS[quadrant[half]]} {COLOURS[colour[half]]} {SHAPES[shape[half]]}"
            for half in (0, 1)
        ]
        said.append(f"{' and '.join(things)} on {TEXTURES[texture]} ground")
    return said


def prompts() -> list[str]:
    """The zero-shot classes: colour and shape of the top object, ``top red circle`` and so on."""
    return [f"top {colour} {shape}" for shape in SHAPES for colour in COLOURS]


def labels(factors: Factors) -> Int64[ndarray, " scene"]:
    """Index into `prompts` of the one prompt that is true of each scene, ``[B]`` int64."""
    index: np.ndarray = factors.shape[:, 0] * len(COLOURS) + factors.colour[:, 0]
    return index


def label(scene: Scene) -> int:
    """Index into `prompts` of the one prompt that is true of the scene."""
    return int(labels(scene.factors)[0])


class SceneSource:
    """The demo's images as an `ImageSource`.

    Parameters
    ----------
    count : int
        Number of scenes, at least 1.
    seed : int
        Scenes of different seeds differ; the demo's weights saw none of the seeds below 2**40.
    """

    groups: list[str] | None = None

    def __init__(self, count: int, seed: int = 0) -> None:
        if count < 1:
            raise UsageError(f"the demo needs at least 1 scene, got {count}: raise `max_images=`")
        self.seed = seed
        self.ids = [f"demo/{seed}/{index:06d}" for index in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        """Scene `i` as an RGB picture of 64 x 64 pixels."""
        if not 0 <= i < len(self.ids):
            raise IndexError(f"scene {i} of {len(self.ids)}")
        return draw(self.seed, i).image()

    def digest(self, i: int) -> str:
        """The digest of the pixels of scene `i`."""
        return digest_of(draw_batch(self.seed, [i])[0].tobytes())

    def factors(self) -> Factors:
        """The factors of all scenes, in the order of `ids`."""
        return factors_of(self.seed, range(len(self.ids)))

    def describe(self) -> dict[str, Any]:
        """What it takes to draw the same scenes again."""
        return {"kind": "demo", "seed": self.seed, "count": len(self.ids)}


@dataclass(frozen=True, kw_only=True)
class _Plan:
    keys: ndarray
    uniform: ndarray
    mask: ndarray
    factors: Factors


def _plan(seed: int, indices: Sequence[int] | ndarray, change: str | None = None) -> _Plan:
    keys = scene_keys(seed, np.asarray(indices, dtype=np.int64))
    uniform = uniform_draws(keys, _SCALARS)
    side = pick(uniform[:, 0:2], 2)
    shape = pick(uniform[:, 2:4], len(SHAPES))
    colour = pick(uniform[:, 4:6], len(COLOURS))
    texture = pick(uniform[:, 6], len(TEXTURES))
    if change is not None:
        values = {"colour": (colour, COLOURS), "shape": (shape, SHAPES), "place": (side, (0, 1))}
        if change == "texture":
            texture = (texture + 1) % len(TEXTURES)
        else:
            table, known = values[change]
            table[:, 0] = (table[:, 0] + 1) % len(known)
    mask = coverage(shape, uniform[:, 8:16].reshape(-1, 2, 4))

    covered = np.zeros((len(keys), 2, GRID // 2, 2, GRID // 2), dtype=np.float32)
    share = mask.reshape(-1, 2, GRID // 2, PATCH, GRID // 2, PATCH).mean((3, 5))
    rows = np.arange(len(keys))
    for half in (0, 1):
        covered[rows, half, :, side[:, half]] = share[:, half]
    patches = covered.reshape(len(keys), -1)
    inside = patches >= OBJECT_COVERAGE
    half_of_patch = np.repeat([0, 1], GRID * GRID // 2)
    factors = Factors(
        quadrant=side + np.array([0, 2]),
        shape=shape,
        colour=colour,
        texture=texture,
        patch_shape=np.where(inside, shape[:, half_of_patch], BACKGROUND).astype(np.int8),
        patch_colour=np.where(inside, colour[:, half_of_patch], BACKGROUND).astype(np.int8),
        patch_coverage=patches,
    )
    return _Plan(keys=keys, uniform=uniform, mask=mask, factors=factors)
