"""Whole-image permutations: the exchangeable unit is the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def image_permutations(images: int, draws: int, seed: int) -> Int[np.ndarray, "draw image"]:
    """Draw permutations of the images; draw `d` is the same whatever `draws` is.

    ``c^pi(b, i) = c(pi(b), i)``: image `b` is given the whole label map of image ``pi(b)``.
    """
    generator = np.random.default_rng([seed, images])
    if draws == 0:
        return np.empty((0, images), dtype=np.int64)
    return np.stack([generator.permutation(images) for _ in range(draws)])


def one_hot(labels: Int[Tensor, "*rows"], clusters: int) -> Float[Tensor, "*rows cluster"]:
    """Cluster indicators, float32."""
    wanted = torch.arange(clusters, device=labels.device)
    return (labels.unsqueeze(-1) == wanted).float()
