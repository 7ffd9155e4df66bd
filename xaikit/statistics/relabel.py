"""Sums of the same logits under other labels, many label maps in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.kmeans import kmeans
from xaikit.statistics.permutations import one_hot
from xaikit.statistics.sums import LogitSums, pair_position_share

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class RelabelledSums:
    """`LogitSums` of many label maps, which share what does not depend on labels.

    Residuals from the position mean are summed, in float32, and the position part of every sum is
    added in float64 at the end: what is left is small, so nothing drowns.

    Parameters
    ----------
    base : LogitSums
        Of the same images: position, square and number.
    maps : sequence of Int[Tensor, "image token"]
        Label maps of those images, in the order in which `add` sees them.
    clusters : sequence of int
        Number of clusters of each map.
    pairs : bool
        Also sum by source and destination cluster.
    """

    def __init__(
        self,
        base: LogitSums,
        maps: Sequence[Int[Tensor, "image token"]],
        clusters: Sequence[int],
        *,
        pairs: bool = False,
    ) -> None:
        self._base, self._maps, self._pairs = base, list(maps), pairs
        self._clusters = list(clusters)
        # Rounded once: what is subtracted from the logits is exactly what is added to the sums.
        self._centre = base.position_mean.float()
        heads, tokens = self._centre.shape[:2]
        self._sums = torch.zeros(heads, sum(clusters), tokens, dtype=torch.float64)
        self._pair_sums = [
            torch.zeros(heads, k, k, dtype=torch.float64) if pairs else None for k in clusters
        ]
        self._done = 0

    def add(self, logits: Float[Tensor, "image head token token"]) -> None:
        """Add a batch of images."""
        here = slice(self._done, self._done + len(logits))
        self._done += len(logits)
        residual = logits - self._centre
        sources = [
            one_hot(labels[here], k) for labels, k in zip(self._maps, self._clusters, strict=True)
        ]
        rows = torch.cat(sources, dim=-1).flatten(0, 1).T
        for head in range(residual.shape[1]):
            self._sums[head] += rows @ residual[:, head].flatten(0, 1)
            if self._pairs:
                for total, maps in zip(self._pair_sums, sources, strict=True):
                    found = maps.transpose(1, 2) @ residual[:, head] @ maps
                    assert total is not None
                    total[head] += found.sum(0, dtype=torch.float64)

    def finished(self) -> list[LogitSums]:
        """The sums of each map."""
        parts = self._sums.split(self._clusters, dim=1)
        return [self._one(*each) for each in zip(self._maps, parts, self._pair_sums, strict=True)]

    def _one(self, labels: Tensor, part: Tensor, pair_part: Tensor | None) -> LogitSums:
        base, k = self._base, part.shape[1]
        found = LogitSums(k, *self._centre.shape[:2])
        found.images, found.position, found.square = base.images, base.position, base.square
        maps = one_hot(labels, k).double()
        per_image = maps.sum(1)
        found.counts = per_image.sum(0)
        found.position_counts = maps.sum(0).T
        found.pair_counts = per_image.T @ per_image
        found.sums = part.transpose(0, 1) + found.position_share(self._centre)
        if pair_part is not None:
            share = pair_position_share(labels, self._centre, k)
            found.pair_sums = pair_part.transpose(0, 1) + share
        return found


def position_clusters(
    tokens: int, prefix: int, grid: Sequence[int], clusters: int, seed: int
) -> Int[Tensor, "token"]:
    """Cluster token positions by where they are, and by nothing else.

    Parameters
    ----------
    prefix : int
        Tokens before the patches; each is far from everything else.
    grid : sequence of int
        Rows and columns of patches; otherwise the patches are taken as a line.
    """
    patch = np.arange(tokens) - prefix
    columns = grid[1] if len(grid) == 2 else max(tokens, 1)
    places = np.stack([patch // columns, patch % columns, np.zeros(tokens)], axis=1)
    places[:prefix] = [[0, 0, 10.0 * tokens * (1 + at)] for at in range(prefix)]
    found = kmeans(places.astype(np.float32), clusters, seed=seed)
    used = torch.from_numpy(found.centroids[found.counts > 0])
    return torch.cdist(torch.from_numpy(places).float(), used).argmin(1)


def positioned_sums(base: LogitSums, places: Int[Tensor, "token"], pairs: bool) -> LogitSums:
    """Sums of the same images where every token's label is that of its position.

    They follow from the position sums, whatever the number of images.
    """
    clusters = base.clusters
    found = base.copy()
    maps = one_hot(places, clusters).double()
    rows = maps.sum(0)
    found.position_counts = maps.T * base.images
    found.counts = rows * base.images
    found.pair_counts = rows[:, None] * rows * base.images
    by_cluster = torch.einsum("ik,hij->khj", maps, base.position)
    if pairs:
        found.pair_sums = by_cluster @ maps
    else:
        found.sums = by_cluster
    return found
