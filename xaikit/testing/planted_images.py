"""Images whose pixels say, exactly, what the tower is to read in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xaikit.testing.planted_spec import IMAGE_RANK, NOISE_RANK, PlantedSpec, PlantedTables

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8

# OpenCLIP's defaults, which a model config by itself always gets.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# Each channel is a sum of ±1 patterns with whole amplitudes around mid-grey, so nothing is
# rounded or clipped: 8 × 15 and 4 × 30 both stay below 127.
GREY = 128
CONTENT_AMPLITUDE = 100
NOISE_UNIT, NOISE_LIMIT = 5, 15
IMAGE_UNIT, IMAGE_LIMIT = 8, 30

# Apart from the streams of the tables, which are drawn from a seed of the same value: NumPy
# takes [s, 1, 0] and [s, 1] for the same seed.
IMAGE_STREAM = 100


@dataclass(frozen=True, kw_only=True)
class PlantedImages:
    """Images and the truth about them.

    Attributes
    ----------
    pixels : Tensor
        `[B, S, S, 3]`, uint8.
    groups : Tensor
        `[B, N]`, int64: the true group of each token; the class token and the sink have the id
        `spec.blank_group`.
    factors : Tensor
        `[B, IMAGE_RANK]`, about standard normal: what an image adds to its logits.
    noise : Tensor
        `[B, N, NOISE_RANK]`, about standard normal, zero at tokens without content.
    """

    pixels: UInt8[Tensor, "batch height width 3"]
    groups: Int[Tensor, "batch token"]
    factors: Float[Tensor, "batch factor"]
    noise: Float[Tensor, "batch token rank"]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def ids(self) -> list[str]:
        """File names, in order, as `write` gives them."""
        return [f"{index:06d}.png" for index in range(len(self))]

    def normalized(self) -> Float[Tensor, "batch 3 height width"]:
        """Float pixels as the tower wants them: between 0 and 1, then OpenCLIP's mean and std."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        return (self.pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def write(self, directory: str | Path) -> None:
        """Write one PNG per image into `directory`, lossless."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, pixels in zip(self.ids, self.pixels.numpy(), strict=True):
            Image.fromarray(pixels).save(directory / name)


def walsh_patterns(patch: int) -> Float[Tensor, "pattern row column"]:
    """Two-dimensional Walsh patterns of ±1 without the flat one: orthogonal, each of mean zero.

    Returns
    -------
    Tensor
        `[patch² − 1, patch, patch]`.
    """
    basis = torch.ones(1, 1)
    while len(basis) < patch:
        basis = torch.kron(basis, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    return torch.einsum("ux,vy->uvxy", basis, basis).reshape(-1, patch, patch)[1:]


def draw_images(spec: PlantedSpec, tables: PlantedTables, count: int, seed: int) -> PlantedImages:
    """Draw images; the first of a longer set are the same as a shorter set's.

    Groups are independent over tokens given the image, with log-odds
    `layout · table[position, group] + share · v[image, group]`. They are independent of the
    image's factors and of the noise, and images are exchangeable: permuting whole label maps
    over images is exactly valid where no edge is planted.
    """
    streams = [np.random.default_rng([seed, IMAGE_STREAM, b]) for b in range(count)]
    drawn = [_draw_codes(spec, tables, stream) for stream in streams]
    shapes = ((spec.tokens,), (IMAGE_RANK,), (spec.tokens, NOISE_RANK))
    groups, factors, noise = (
        np.stack(parts) if count else np.zeros((0, *shape), int)
        for parts, shape in zip(
            zip(*drawn, strict=True) if count else ((), (), ()), shapes, strict=True
        )
    )
    return PlantedImages(
        pixels=_paint(spec, groups, factors, noise),
        groups=torch.from_numpy(groups),
        factors=torch.from_numpy(factors).float() / IMAGE_UNIT,
        noise=torch.from_numpy(noise).float() / NOISE_UNIT,
    )


def _draw_codes(
    spec: PlantedSpec, tables: PlantedTables, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    taste = spec.share * rng.standard_normal(spec.groups)
    odds = spec.layout * tables.layout.numpy() + taste
    # The largest of log-odds plus Gumbel noise is a draw from their softmax.
    groups = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1).astype(np.int64)
    factors = _whole_normal(rng, IMAGE_UNIT, IMAGE_LIMIT, (IMAGE_RANK,))
    noise = _whole_normal(rng, NOISE_UNIT, NOISE_LIMIT, (spec.tokens, NOISE_RANK))
    blank = list(spec.blank_tokens)
    groups[blank] = spec.blank_group
    noise[blank] = 0
    return groups, factors, noise


def _whole_normal(
    rng: np.random.Generator, unit: int, limit: int, shape: tuple[int, ...]
) -> np.ndarray:
    return np.clip(np.rint(unit * rng.standard_normal(shape)), -limit, limit).astype(np.int64)


def _paint(spec: PlantedSpec, groups: np.ndarray, factors: np.ndarray, noise: np.ndarray) -> Tensor:
    patterns = walsh_patterns(spec.patch).numpy().astype(np.int64)
    count = len(groups)
    drawn = groups != spec.blank_group
    content = np.concatenate([patterns[: spec.groups], np.zeros_like(patterns[:1])])
    red = CONTENT_AMPLITUDE * content[groups]
    green = np.einsum("bnr,rxy->bnxy", noise, patterns[:NOISE_RANK])
    wash = np.einsum("bf,fxy->bxy", factors, patterns[:IMAGE_RANK])
    blue = wash[:, None] * drawn[:, :, None, None]
    patches = GREY + np.stack([red, green, blue], axis=-1)[:, 1:]
    shape = (count, spec.grid, spec.grid, spec.patch, spec.patch, 3)
    side = spec.image_size
    image = patches.reshape(shape).transpose(0, 1, 3, 2, 4, 5).reshape(count, side, side, 3)
    return torch.from_numpy(image.astype(np.uint8))
