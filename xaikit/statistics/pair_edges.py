"""Edges that end at a cluster's tokens, one block of images at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.statistics.block_edges import Block, EdgeBlocks
from xaikit.statistics.edge_null import EdgeNull

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.statistics.sums import LogitSums


class PairEdges(EdgeBlocks):
    """Edges that end at a cluster's tokens.

    The energy about the final mean would need sums for every pair of clusters and of tokens. It
    is taken about the pilot mean, less what the pilot's error adds where clusters have no effect;
    exact in total, and for each edge where the pilot is the mean of all images.
    """

    def __init__(self, clusters: int, heads: int, tokens: int, **options: object) -> None:
        super().__init__(clusters, heads, tokens, clusters, **options)  # type: ignore[arg-type]
        self._new("pair_counts", clusters, clusters)
        self._new("pair_sums", clusters, heads, clusters)
        self._new("joint", clusters * tokens, clusters * tokens, dtype=torch.float32)
        self._selection: Tensor | None = None

    def _support_shape(self) -> tuple[int, ...]:
        return (self.clusters, self.clusters)

    def begin(self, block: Block) -> None:
        """Prepare for the heads of a block."""
        per_image = block.indicators.sum(1)
        counts = per_image.T @ per_image
        self.totals["pair_counts"] += counts.to(self.totals["pair_counts"].device, torch.float64)
        flat = block.indicators.transpose(1, 2).reshape(block.images, -1)
        self.totals["joint"].addmm_(flat.T, flat)
        self._selection = block.selection(self.draws, self.seed) if self._drawn(block) else None
        self._begin(block, counts)

    def add(
        self,
        block: Block,
        heads: slice,
        residual: Float[Tensor, "head image token token"],
        by_position: Float[Tensor, "head token token"],
        by_cluster: Float[Tensor, "head cluster token"],
        pilot: Float[Tensor, "head token token"],
    ) -> None:
        """Add some heads of a block; `residual` is about the pilot mean."""
        b, own = block.images, torch.arange(block.images, device=residual.device)
        sources = block.indicators.transpose(1, 2)
        for at in range(len(residual)):
            one = slice(heads.start + at, heads.start + at + 1)
            rows = sources.reshape(b * self.clusters, self.tokens)
            crossed = (rows @ residual[at]).view(b, b, self.clusters, self.tokens)
            values = crossed @ block.indicators
            share = ((sources @ pilot[at]) @ block.indicators).sum(0)
            found = values[own, own].sum(0) + share
            self._accumulate("pair_sums", one, found.unsqueeze(0))
            values = (
                values
                - values.mean(0, keepdim=True)
                - values.mean(1, keepdim=True).sub_(values.mean((0, 1)))
            )
            excess = values[own, own].sum(0).unsqueeze(0)
            self._accumulate("excess", one, excess)
            if self._drawn(block):
                self._accumulate("draw_excess", one, excess)
                self._accumulate("draw_sums", one, found.unsqueeze(0))
            squares = self._fold(block, one, values.unsqueeze(0), self._selection)
            self._accumulate("variance", one, squares / max(b - 1, 1))

    def add_squares(self, block: Block, heads: slice, by_cluster: Tensor, squares: Tensor) -> None:
        """Add squared residuals ``[head, image, token, token]``."""
        if self.energy:
            sources = block.indicators.transpose(1, 2)
            self._accumulate("energy", heads, (sources @ squares @ block.indicators).sum(1))

    def position_share(self, mean: Float[Tensor, "head token token"]) -> Tensor:
        """Sum of a position-only prediction over the entries of each pair ``[K, H, K]``."""
        k, n = self.clusters, self.tokens
        joint = self.totals["joint"].cpu().view(k, n, k, n)
        found = torch.empty(k, self.heads, k, dtype=torch.float64)
        for cluster in range(k):
            entries = joint[cluster].double().transpose(0, 1).reshape(k, n * n)
            found[cluster] = mean.double().flatten(1) @ entries.T
        return found

    def null(self, sums: LogitSums, pilot: Tensor, position_counts: Tensor) -> EdgeNull:
        """Null of all edges; `pilot` and the counts as in `BlockSums`."""
        energy = torch.zeros(0)
        if self.energy:
            shift = (sums.position_mean - pilot).square()
            energy = self.totals["energy"].cpu() - self.position_share(shift)
            energy = energy.clamp(min=0.0)
        counts = sums.pair_counts[:, None, :]
        return self._null(sums, sums.pair_prototypes, counts, energy, sums.pair_counts)
