"""Everything a fit needs of a part of the images, accumulated one block of images at a time.

Sums that squared errors are differences of are in float64. Energies and the null are of logits
about a mean table ``M0`` (the position-only mean of the discovery images): so their terms are all
of one size and are added in float32 within a block. Memory does not depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.block_moments import BlockMoments, log_arrangements, power_of_two
from xaikit.statistics.block_null import Block, Draws, EdgeShape, given_out
from xaikit.statistics.moments import ImageCovariance
from xaikit.statistics.permutations import entry_sums
from xaikit.statistics.totals import Totals, as_float64, in_float64

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.distributed import World

NULL_BLOCK = 32
"""Images within which label maps are permuted."""
NULL_IMAGES = 128
"""At most so many images are permuted by sampling."""
SHUFFLES = 5
"""Draws of shuffled labels behind the controls that every fit carries."""
SHAPE = ("fourth", "sixth", "eighth")
"""Totals that say how far the null is from normal, see `xaikit.statistics.block_moments`."""
_SHUFFLE_BYTES = 1 << 26
EXACT_CUBE = 8 << 20
"""Up to so many ``heads * tokens ** 3``, moments are over all images, not within blocks."""

Read = Callable[[slice], "Float[Tensor, 'head image token token']"]
"""Logits of some heads of a block, float32."""


def exact_moments(shape: EdgeShape, null_block: int) -> bool:
    """Whether edges are tested by permutations of all images rather than within blocks."""
    return not null_block and not shape.pairs and shape.heads * shape.tokens**3 <= EXACT_CUBE


def shuffle_count(shape: EdgeShape) -> int:
    """Shuffles whose sums take no more than 64 MiB, at least one."""
    size = 16 * shape.heads * shape.clusters * shape.width
    return max(1, min(SHUFFLES, _SHUFFLE_BYTES // size))


class EdgeSums:
    """Sums and the permutation null of one part of the images, for one pair of layers.

    Parameters
    ----------
    shape : EdgeShape
    mean : Float[Tensor, "head token token"]
        ``M0``, float64.
    energy : bool
        Whether edges' energies are wanted; they are about ``M0``.
    exact : bool
        Mean and variance over all images as well, see `exact_moments`.
    null, tails : bool
        Whether moments are wanted at all, and what p-values need beyond mean and variance.
    seed : int
        Of shuffled labels.
    shuffles : int
        Shuffled label maps to sum as well.
    """

    def __init__(
        self,
        shape: EdgeShape,
        mean: Float[Tensor, "head token token"],
        *,
        energy: bool = False,
        exact: bool = False,
        null: bool = True,
        tails: bool = True,
        seed: int = 0,
        shuffles: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape, self.seed, self.shuffles, self.energy = shape, seed, shuffles, energy
        self.totals = Totals(device)
        self.mean = mean.to(self.totals.device, torch.float64)
        h, k, n, w = shape.heads, shape.clusters, shape.tokens, shape.width
        new = self.totals.new
        new("images")
        new("square")
        new("position", h, n, n)
        new("sums", h, k, w)
        if shape.pairs:
            new("share", h, k, k)
        if energy:
            new("energy", h, k, w)
        new("shuffled", h, shuffles, k, w)
        self.tails = null and tails
        self.crossed = null and (tails or not exact)
        if self.crossed:
            new("excess", h, k, w)
            new("variance", h, k, w)
        if self.tails:
            new("arrangements", k, w if shape.pairs else 1)
            for name in SHAPE:
                new(name, h, k, w, rounded=True)
        self.covariance = ImageCovariance(h, n, device) if null and exact else None
        self.permuted = self.crossed or self.covariance is not None or shuffles > 0

    def add(
        self,
        labels: Int[Tensor, "image token"],
        read: Read,
        number: int,
        draws: Draws | None = None,
        lane: int = 0,
    ) -> None:
        """Add block `number` of this part of the images, and its draws where it is drawn."""
        block = Block(labels, self.shape.clusters, number, lane)
        self.totals.add("images", torch.tensor(float(block.images)))
        if self.tails:
            self.totals.add("arrangements", self._arrangements(block))
        if draws is not None:
            draws.begin(block)
        for head in range(self.shape.heads):
            _Head(self, block, head, read, draws).add()

    def _arrangements(self, block: Block) -> Float[Tensor, "cluster edge"]:
        """`log_arrangements` of the block, for all destinations that differ in it."""
        present = (block.maps.sum(1) > 0).float()
        if self.shape.pairs:
            return log_arrangements(present[:, :, None] * present[:, None, :])
        return log_arrangements(present).unsqueeze(1)

    def state(self) -> dict[str, Tensor]:
        """Everything, to go on from to the last bit."""
        return {**self.totals.state(), **(self.covariance.state() if self.covariance else {})}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.totals.load(state)
        if self.covariance:
            self.covariance.load(state)

    def reduce(self, world: World) -> None:
        """Add up the sums of all processes, on the first one."""
        self.totals.reduce(world)
        if self.covariance:
            self.covariance.reduce(world)

    def finite(self) -> bool:
        """Whether every logit so far was a finite number."""
        return bool(torch.isfinite(self.totals.value("square")))


class _Head:
    """One head of one block."""

    def __init__(
        self, owner: EdgeSums, block: Block, head: int, read: Read, draws: Draws | None
    ) -> None:
        self.owner, self.block, self.head, self.draws = owner, block, head, draws
        self.logits = read(slice(head, head + 1))[0]
        self.rows = slice(head, head + 1)

    def _plus(self, name: str, part: Tensor) -> None:
        self.owner.totals.add(name, part.unsqueeze(0), self.rows)

    def add(self) -> None:
        o, block = self.owner, self.block
        by_edge, position, square = self._sums()
        self._plus("sums", by_edge)
        self._plus("position", position)
        o.totals.add("square", square)
        if o.shape.pairs:
            self._plus("share", self._share(o.mean[self.head]))
        if o.energy:
            self._plus("energy", self._by_edge(block.labels, self.residual.square()))
        if o.permuted or self.draws is not None:
            self._permute(by_edge, position / block.images)

    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Float64 sums of the logits by edge and by position, and of their squares."""
        o, home = self.owner, self.owner.totals.device
        labels, shape = self.block.labels.to(home), o.shape
        by_edge = torch.zeros(shape.clusters, shape.width, dtype=torch.float64, device=home)
        position = torch.zeros_like(o.mean[self.head])
        square = torch.zeros((), dtype=torch.float64, device=home)
        for some, few in in_float64(self.logits, home):
            by_edge += entry_sums(labels[some], few, shape.clusters, shape.pairs)
            position += few.sum(0)
            square += torch.dot(few.view(-1), few.view(-1))
        return by_edge, position, square

    @cached_property
    def residual(self) -> Float[Tensor, "image token token"]:
        """``A - M0``, to what float32 says of the difference."""
        mean, device = self.owner.mean[self.head], self.logits.device
        high = mean.float()
        low = (mean - high).float()
        return (self.logits - high.to(device)).sub_(low.to(device))

    def _permute(self, by_edge: Tensor, position: Tensor) -> None:
        """Add to the null, from the block's sums and means; the residuals are overwritten."""
        o, usual = self.owner, self._share(position)
        if self.draws is not None:
            self.draws.add_base(self.rows, usual.unsqueeze(0))
        # Of logits about M0, so that large ones leave no rounding behind.
        moved = (position - o.mean[self.head]).float()
        centred = self.residual.sub_(moved.to(self.logits.device))
        if o.covariance is not None:
            o.covariance.add(self.head, centred, moved, self.block.lane)
        if o.crossed:
            self._plus("excess", by_edge - usual)
        if o.crossed or o.shuffles or self.draws is not None:
            shuffled = self._cross(centred)
            # Shuffled over images, labels leave every position as many entries of each edge.
            self._plus("shuffled", shuffled.view(-1, *usual.shape) + usual)

    def _share(self, table: Tensor) -> Tensor:
        """Sum of a table of positions over the entries of each edge, float64."""
        block, shape = self.block, self.owner.shape
        if not shape.pairs:
            return block.maps.to(table.device).sum(0).double().T @ table
        labels = block.labels.to(table.device)
        return entry_sums(labels, table.double().expand(block.images, -1, -1), shape.clusters, True)

    def _by_edge(self, labels: Tensor, values: Tensor) -> Tensor:
        """Sum of values over the entries of each edge under some label maps, float32."""
        return entry_sums(labels, values, self.owner.shape.clusters, self.owner.shape.pairs)

    def _cross(self, centred: Tensor) -> Float[Tensor, "shuffle edge"]:
        """Add the block's permutations and return shuffled sums; `centred` is overwritten."""
        o, block, shape = self.owner, self.block, self.owner.shape
        unit = power_of_two(float(centred.norm()) / max(centred.numel(), 1) ** 0.5)
        sizes = (block.images, shape.clusters, shape.width)
        moments = BlockMoments(*sizes, unit, centred.device) if o.crossed else None
        orders = block.orders(o.shuffles, o.seed + 1)[1:].to(centred.device)
        shuffled = centred.new_zeros(o.shuffles, shape.clusters * shape.width)
        for images, values in block.crossed(centred.div_(unit), shape.pairs):
            if self.draws is not None:
                self.draws.add(self.head, images, values, unit)
            if o.shuffles:
                shuffled.add_(given_out(values, orders, images), alpha=unit)
            if moments is not None:
                moments.add(values)
        if moments is not None:
            for name, part in moments.sums(o.totals.device).items():
                if name in o.totals:
                    self._plus(name, part)
        return as_float64(shuffled)
