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
from xaikit.statistics.moments import label_covariance, zscores
from xaikit.statistics.permutations import image_permutations, one_hot

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.statistics.sums import LogitSums

_SLAB = 8


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
