"""The permutation null of content-addressed edges (cluster to cluster).

``f(b', b)[k,h,k'] = sum_{i,j} L[b',i,k] L[b',j,k'] R[b,h,i,j]`` for all pairs of images would cost
the square of their number, so whole-image permutations are restricted to random blocks of images:
a subgroup, hence as exact a null, that gives up a ``1/block`` part of the variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.permutations import image_permutations, one_hot

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def random_blocks(images: int, block: int, seed: int) -> list[np.ndarray]:
    """Split image indices into random blocks of nearly equal size, at most `block`."""
    order = np.random.default_rng([seed, images, 1]).permutation(images)
    return [np.sort(part) for part in np.array_split(order, max(1, -(-images // block)))]


class PairNull:
    """Moments and sampled permutations of pair sums, block by block.

    Attributes
    ----------
    excess : Float[Tensor, "cluster head cluster"]
        Pair sums of residuals minus their permutation mean.
    variance : Float[Tensor, "cluster head cluster"]
        Permutation variance of the pair sums.
    draws : Float[Tensor, "draw cluster head cluster"]
        Residual pair sums under sampled permutations.
    energy : Float[Tensor, "cluster head cluster"]
        Sum of squared residuals over the entries of each pair.
    """

    def __init__(self, clusters: int, heads: int, draws: int, seed: int) -> None:
        shape = (clusters, heads, clusters)
        self._clusters = clusters
        self._seed = seed
        self._blocks = 0
        self.excess = torch.zeros(shape, dtype=torch.float64)
        self.variance = torch.zeros(shape, dtype=torch.float64)
        self.energy = torch.zeros(shape, dtype=torch.float64)
        self.draws = torch.zeros((draws, *shape), dtype=torch.float64)

    def add(
        self,
        labels: Int[Tensor, "image token"],
        residual: Float[Tensor, "image head token token"],
    ) -> None:
        """Add one block; `residual` is centred over all images at each position."""
        images = len(labels)
        maps = one_hot(labels, self._clusters)
        sources = maps.transpose(1, 2)
        seed = self._seed + 7919 * self._blocks
        orders = torch.from_numpy(image_permutations(images, len(self.draws), seed))
        for head in range(residual.shape[1]):
            values = torch.stack([_crossed(maps, part) for part in residual[:, head]], dim=1)
            self._add_head(head, values, orders)
            squares = sources @ residual[:, head].square() @ maps
            self.energy[:, head] += squares.sum(0, dtype=torch.float64)
        self._blocks += 1

    def _add_head(
        self,
        head: int,
        values: Float[Tensor, "other image cluster cluster"],
        orders: Int[Tensor, "draw image"],
    ) -> None:
        images = values.shape[1]
        own = torch.arange(images)
        mean = values.mean((0, 1), dtype=torch.float64)
        self.excess[:, head] += values[own, own].sum(0, dtype=torch.float64) - images * mean
        centred = values - values.mean(0, keepdim=True) - values.mean(1, keepdim=True)
        squares = centred.add_(mean.float()).square_().sum((0, 1), dtype=torch.float64)
        self.variance[:, head] += squares / max(images - 1, 1)
        for draw, order in enumerate(orders):
            self.draws[draw, :, head] += values[order, own].sum(0, dtype=torch.float64)


def _crossed(
    maps: Float[Tensor, "other token cluster"], residual: Float[Tensor, "token token"]
) -> Float[Tensor, "other cluster cluster"]:
    """Pair sums of one image's residual logits of one head under every image's label map."""
    others, tokens, clusters = maps.shape
    rows = maps.transpose(1, 2).reshape(others * clusters, tokens)
    return (rows @ residual).view(others, clusters, tokens) @ maps
