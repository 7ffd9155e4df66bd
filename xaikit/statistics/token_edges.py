"""Edges that end at a token, one block of images at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.statistics.block_edges import Block, EdgeBlocks
from xaikit.statistics.edge_null import EdgeNull
from xaikit.statistics.moments import label_covariance

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.statistics.sums import LogitSums

_SLAB = 8


class TokenEdges(EdgeBlocks):
    """Edges that end at a token.

    The exact energy about the final position-only mean `M` follows from the energy about a pilot
    mean `M0` and the sums ``T`` of ``A - M0`` by cluster, head, source and destination token:
    ``sum (A-M)^2 = sum (A-M0)^2 - 2 sum_i d T + sum_i n d^2`` with ``d = M - M0``. `T` may be in
    float32, since the terms it enters are small corrections.
    """

    def __init__(self, clusters: int, heads: int, tokens: int, **options: object) -> None:
        super().__init__(clusters, heads, tokens, tokens, **options)  # type: ignore[arg-type]
        if self.energy:
            self._new("cross", heads, tokens, clusters, tokens, dtype=torch.float32)
        self._buffer = torch.empty(0, device=self.device)
        self._centred = torch.empty(0)
        self._selection: Tensor | None = None
        self._sources = torch.empty(0)

    def begin(self, block: Block) -> None:
        """Prepare for the heads of a block."""
        mean = block.indicators.mean(0, keepdim=True)
        self._centred = (block.indicators - mean).transpose(1, 2).reshape(-1, self.tokens)
        self._selection = block.selection(self.draws, self.seed) if self._drawn(block) else None
        if self.energy:
            self._sources = block.indicators.permute(1, 2, 0).contiguous()
        self._begin(block, block.position_counts.sum(1))

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
        excess = by_cluster - (block.position_counts / block.images) @ by_position
        self._accumulate("excess", heads, excess)
        if self._drawn(block):
            self._accumulate("draw_excess", heads, excess)
            self._accumulate("draw_sums", heads, by_cluster + block.position_counts @ pilot)
        if block.images > 1:
            crossed = self._drawn(block) or self._crossing_is_cheaper(block.images)
            variance = self._crossed if crossed else self._covaried
            found = variance(block, heads, residual, by_position) / (block.images - 1)
            self._accumulate("variance", heads, found.clamp_(min=0.0))
        if self.energy:
            for at in range(len(residual)):
                self.totals["cross"][heads.start + at].baddbmm_(
                    self._sources, residual[at].transpose(0, 1)
                )

    def add_squares(self, block: Block, heads: slice, by_cluster: Tensor, squares: Tensor) -> None:
        """Add squared residuals, summed by cluster ``[head, cluster, token]``."""
        if self.energy:
            self._accumulate("energy", heads, by_cluster)

    def _crossing_is_cheaper(self, images: int) -> bool:
        # Multiplications for a column of one image; many small products run at 2/5 of the speed.
        n, k = self.tokens, self.clusters
        return k * images <= 2.5 * (n + k * n / images)

    def _crossed(self, block: Block, heads: slice, residual: Tensor, by_position: Tensor) -> Tensor:
        count, b = len(residual), block.images
        shape = (count * b, b * self.clusters, self.tokens)
        size = shape[0] * shape[1] * shape[2]
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, device=residual.device)
        values = self._buffer[:size].view(shape)
        torch.bmm(
            self._centred.expand(shape[0], *self._centred.shape),
            residual.reshape(shape[0], self.tokens, self.tokens),
            out=values,
        )
        squares = self._fold(
            block, heads, values.view(count, b, b, self.clusters, self.tokens), self._selection
        )
        # Centring over the logits' images as well: with labels centred, only squares notice.
        mean = (self._centred @ (by_position / b)).view(count, b, self.clusters, self.tokens)
        return squares - b * mean.square_().sum(1)

    def _covaried(
        self, block: Block, heads: slice, residual: Tensor, by_position: Tensor
    ) -> Tensor:
        """The same by covariances: cheaper where clusters are many or blocks large."""
        home = self.totals["variance"].device
        labels = label_covariance(block.labels.to(home), self.clusters).flatten(1)
        found = torch.empty(len(residual), self.clusters, self.tokens, dtype=torch.float64)
        for at, part in enumerate(residual):
            centred = (part - by_position[at] / block.images).permute(2, 1, 0).contiguous()
            for start in range(0, self.tokens, _SLAB):
                columns = centred[start : start + _SLAB]
                products = columns @ columns.transpose(1, 2)
                products = products.flatten(1).to(home, torch.float64)
                found[at, :, start : start + _SLAB] = (labels @ products.T).cpu()
        return found

    def null(self, sums: LogitSums, pilot: Tensor, position_counts: Tensor) -> EdgeNull:
        """Null of all edges; `pilot` and the counts as in `BlockSums`."""
        counts = sums.counts[:, None, None]
        energy = torch.zeros(0)
        if self.energy:
            shift = sums.position_mean - pilot
            energy = self.totals["energy"].cpu().clone()
            cross = self.totals["cross"].cpu()
            for head in range(self.heads):
                change = torch.einsum("ikj,ij->kj", cross[head].double(), shift[head])
                energy[:, head] += position_counts @ shift[head].square() - 2.0 * change
        return self._null(sums, sums.prototypes, counts, energy, None)
