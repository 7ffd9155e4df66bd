"""The permutation null of edges when only one block of images is in memory at a time.

Whole-image permutations are restricted to random blocks of images. That is a subgroup, so the
test is exactly as valid; it gives up the ``1/block`` part of the variance that lies between
blocks. Within a block of `b` images, ``f(b', b)`` is what an edge's sum would gain from image `b`
under the label map of image `b'`; centred over both, it gives everything at once: the excess
``sum_b f(b, b)``, Hoeffding's variance ``sum_{b,b'} f^2 / (b - 1)`` (see
`xaikit.statistics.moments`) and every sampled permutation ``sum_b f(pi(b), b)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.edge_null import EdgeNull, effects_null
from xaikit.statistics.moments import zscores
from xaikit.statistics.permutations import image_permutations, one_hot

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.statistics.sums import LogitSums


class Block:
    """Label maps of one block of images, in the forms that sums need.

    Attributes
    ----------
    number : int
        Of the block among those of its part of the images; it seeds the block's permutations.
    indicators : Float[Tensor, "image token cluster"]
    rows : Float[Tensor, "cluster image*token"]
    position_counts : Float[Tensor, "cluster token"]
    """

    def __init__(self, labels: Int[Tensor, "image token"], clusters: int, number: int) -> None:
        self.labels = labels
        self.number = number
        self.indicators = one_hot(labels, clusters)
        self.rows = self.indicators.permute(2, 0, 1).reshape(clusters, -1)
        self.position_counts = self.indicators.sum(0).T.contiguous()

    @property
    def images(self) -> int:
        """Images of the block."""
        return len(self.labels)

    def selection(self, draws: int, seed: int) -> Float[Tensor, "draw image*image"]:
        """1 where a draw gives image `b` the label map of ``pi(b)``, over ``(b, b')``."""
        b = self.images
        orders = torch.from_numpy(image_permutations(b, draws, seed + 7919 * self.number))
        chosen = torch.zeros(draws, b * b)
        chosen.scatter_(1, orders + b * torch.arange(b), 1.0)
        return chosen.to(self.labels.device)


class EdgeBlocks:
    """Excess, variance and draws of all edges, block by block; subclasses know the edges.

    Parameters
    ----------
    clusters, heads, tokens, width : int
        `width` is the number of destinations.
    draws, draw_blocks, seed : int
        Permutations to sample, and on how many of the blocks.
    energy : bool
        Whether the energy of each edge is wanted.

    Attributes
    ----------
    totals : dict of str to Tensor
        All that accumulates; sums over disjoint blocks add up.
    """

    def __init__(
        self,
        clusters: int,
        heads: int,
        tokens: int,
        width: int,
        *,
        draws: int,
        draw_blocks: int,
        seed: int,
        energy: bool,
        device: torch.device | str,
    ) -> None:
        self.clusters, self.heads, self.tokens, self.width = clusters, heads, tokens, width
        self.draws = draws if draw_blocks else 0
        self.draw_blocks, self.seed, self.energy = draw_blocks, seed, energy
        self.device = torch.device(device)
        self.totals: dict[str, Tensor] = {}
        for name in ("excess", "variance", *(["energy"] if energy else [])):
            self._new(name, clusters, heads, width)
        if self.draws:
            self._new("draw_images")
            self._new("draw_rows", clusters)
            self._new("draw_counts", *self._support_shape())
            self._new("draw_sums", clusters, heads, width)
            self._new("draw_excess", clusters, heads, width)
            self._new("draws", heads, self.draws, clusters * width, dtype=torch.float32)

    def _new(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        # Apple's devices have no float64: their totals are kept by the CPU.
        home = "cpu" if self.device.type == "mps" and dtype == torch.float64 else self.device
        self.totals[name] = torch.zeros(shape, dtype=dtype, device=home)

    def _support_shape(self) -> tuple[int, ...]:
        return (self.clusters,)

    def _accumulate(self, name: str, heads: slice, part: Tensor) -> None:
        """Add ``[head, cluster, width]`` to the total of these heads."""
        total = self.totals[name]
        total[:, heads] += part.transpose(0, 1).to(total.device, torch.float64)

    def _drawn(self, block: Block) -> bool:
        return self.draws > 0 and block.number < self.draw_blocks

    def _begin(self, block: Block, counts: Tensor) -> None:
        if self._drawn(block):
            rows = block.position_counts.sum(1)
            for name, part in (("draw_counts", counts), ("draw_rows", rows)):
                self.totals[name] += part.to(self.totals[name].device, torch.float64)
            self.totals["draw_images"] += block.images

    def _fold(
        self,
        block: Block,
        heads: slice,
        values: Float[Tensor, "head image image cluster width"],
        selection: Tensor | None,
    ) -> Float[Tensor, "head cluster width"]:
        """Add the draws of centred `values`; return their sum of squares. Overwrites them."""
        count, b = values.shape[0], block.images
        flat = values.view(count, b * b, self.clusters * self.width)
        if selection is not None:
            for at in range(count):
                self.totals["draws"][heads.start + at].addmm_(selection, flat[at])
        ones = flat.new_ones(1, b * b)
        # A product with ones sums over the first axis several times as fast as sum does.
        return (ones @ flat.square_()).view(count, self.clusters, self.width)

    def permuted(self, base: Tensor, counts: Tensor) -> Iterator[Tensor]:
        """Permuted prototypes, draw by draw."""
        for draw in range(self.draws):
            sums = self.totals["draws"][:, draw].cpu().double()
            yield base + sums.view(self.heads, self.clusters, self.width).transpose(0, 1) / counts

    def _null(
        self,
        sums: LogitSums,
        prototypes: Tensor,
        counts: Tensor,
        energy: Tensor,
        pair_counts: Tensor | None,
    ) -> EdgeNull:
        """Put the totals together; `counts` are entries, shaped to divide edges."""
        total = {name: tensor.cpu() for name, tensor in self.totals.items() if name != "draws"}
        entries = max(sums.images * self.heads * self.tokens**2, 1)
        scale = float((sums.square / entries).sqrt())
        rows = sums.counts
        base = prototypes - total["excess"] / counts.clamp(min=1.0)
        if self.draws:
            # The draws are of these images only, so they are compared with these images' effects.
            rows = total["draw_rows"]
            support = total["draw_counts"]
            pair_counts = None if pair_counts is None else support
            divisor = self._divisor(support).clamp(min=1.0)
            prototypes = total["draw_sums"] / divisor
            base = prototypes - total["draw_excess"] / divisor
        else:
            divisor = counts.clamp(min=1.0)
        occupied = (counts > 0).expand(total["variance"].shape)
        return EdgeNull(
            zscores=zscores(total["excess"], total["variance"], counts, scale),
            energy=energy,
            draws=self.draws,
            occupied=occupied,
            draw_images=self.draw_images,
            **effects_null(
                prototypes, base, rows, self.permuted(base, divisor), self.draws, pair_counts
            ),
        )

    def _divisor(self, support: Tensor) -> Tensor:
        return support[:, None, None] if support.ndim == 1 else support[:, None, :]

    @property
    def draw_images(self) -> int:
        """Images that the draws permute."""
        return int(self.totals["draw_images"]) if self.draws else 0
