"""Whole-image permutations: the exchangeable unit is the image."""

from __future__ import annotations

from collections.abc import Iterator
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


class PermutedResiduals:
    """Cluster sums of residual logits under many image permutations, in one pass.

    The residual ``R = A - M_pos`` is summed instead of `A`: the position part of every permuted
    prototype is the same for all permutations, ``sum_i n[k,i] M_pos[h,i,j] / n_k``, because a
    whole-image permutation keeps positions. What is left is small, so float32 sums are exact
    enough.

    Parameters
    ----------
    labels : Int[Tensor, "image token"]
    permutations : Int[ndarray, "draw image"]
    clusters, heads : int
    budget_bytes : int
        Memory for the permuted cluster indicators of a few images.
    """

    def __init__(
        self,
        labels: Int[Tensor, "image token"],
        permutations: np.ndarray,
        clusters: int,
        heads: int,
        *,
        budget_bytes: int = 1 << 26,
    ) -> None:
        draws, tokens = len(permutations), labels.shape[1]
        self._labels = labels
        self._permutations = torch.from_numpy(permutations)
        self._clusters = clusters
        self._step = max(1, budget_bytes // max(4 * draws * clusters * tokens, 1))
        self._done = 0
        self._sums = torch.zeros(draws * clusters, heads * tokens)

    def add(self, residual: Float[Tensor, "image head token token"]) -> None:
        """Add the next images, in the order of the images that the permutations are of."""
        draws = len(self._permutations)
        wanted = torch.arange(self._clusters).unsqueeze(1)
        for part in residual.split(self._step) if draws else ():
            images = slice(self._done, self._done + len(part))
            maps = self._labels[self._permutations[:, images]].reshape(draws, 1, -1)
            indicators = (maps == wanted).float().flatten(0, 1)
            values = part.transpose(1, 2).reshape(indicators.shape[1], -1)
            self._sums.addmm_(indicators, values)
            self._done = images.stop

    def means(
        self, base: Float[Tensor, "cluster head token"], counts: Float[Tensor, "cluster"]
    ) -> Iterator[Float[Tensor, "cluster head token"]]:
        """Permuted prototypes, draw by draw, given the position part `base` of every prototype."""
        occupied = counts.double().clamp(min=1.0)[:, None, None]
        for draw in range(len(self._permutations)):
            rows = slice(draw * self._clusters, (draw + 1) * self._clusters)
            yield base + self._sums[rows].view(base.shape).double() / occupied
