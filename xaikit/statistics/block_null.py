"""The permutation null of edges from one block of images at a time.

Whole-image permutations are restricted to random blocks of images: a subgroup, so the test is
exactly as valid; it gives up the ``1/block`` part of the variance that lies between blocks.
Within a block of `b` images, ``f(b', b)`` is what an edge's sum gains from image `b` under the
label map of image `b'`, centred over both. Hoeffding's variance of ``sum_b f(pi(b), b)`` is
``sum_{b',b} f^2 / (b - 1)``, and every sampled permutation is a sum of `b` of its values.

References
----------
Hoeffding (1951), A combinatorial central limit theorem, Ann. Math. Statist. 22.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from xaikit.statistics.effects import ablation_effects, injection_effects
from xaikit.statistics.permutations import image_permutations, one_hot
from xaikit.statistics.totals import Totals

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.distributed import World

BUFFER = 1 << 26
"""Bytes of crossed values at a time."""


@dataclass(frozen=True)
class EdgeShape:
    """Sizes of a table of edges; destinations are tokens or, with `pairs`, clusters."""

    clusters: int
    heads: int
    tokens: int
    pairs: bool

    @property
    def width(self) -> int:
        """Destinations."""
        return self.clusters if self.pairs else self.tokens


class Block:
    """Label maps of one block of images, in the forms that sums need.

    Attributes
    ----------
    number : int
        Of the block among those of its part of the images; it seeds the block's permutations.
    lane : int
        Of the sums that are added in float32 (see `xaikit.statistics.moments.ImageCovariance`).
    maps : Float[Tensor, "image token cluster"]
        Indicators, float32.
    """

    def __init__(
        self, labels: Int[Tensor, "image token"], clusters: int, number: int, lane: int = 0
    ) -> None:
        self.number, self.lane = number, lane
        self.clusters = clusters
        self.labels = labels
        self.maps = one_hot(labels, clusters)
        self._memory = torch.empty(0)

    @property
    def images(self) -> int:
        """Images of the block."""
        return len(self.maps)

    def orders(self, draws: int, seed: int) -> Int[Tensor, "draw image"]:
        """Permutations of the block's label maps, the first one leaving all as they are."""
        drawn = torch.from_numpy(image_permutations(self.images, draws, seed + 7919 * self.number))
        return torch.cat([torch.arange(self.images)[None], drawn])

    def crossed(
        self, residual: Float[Tensor, "image token token"], pairs: bool
    ) -> Iterator[tuple[slice, Float[Tensor, "map cluster image width"]]]:
        """Yield ``f(b', b)`` of one head for some images `b` at a time, all label maps `b'`.

        What is yielded holds until the next part is asked for.

        Parameters
        ----------
        residual : Float[Tensor, "image token token"]
            Logits centred over the block's images at each position.
        """
        b, tokens, k = self.images, residual.shape[1], self.clusters
        step = max(1, BUFFER // (4 * b * k * max(tokens, k if pairs else 0)))
        for start in range(0, b, step):
            images = slice(start, min(start + step, b))
            if residual.device.type != "cpu":
                yield images, self._multiplied(residual[images], pairs)
            elif pairs:
                yield images, self._added_pairs(residual[images])
            else:
                yield images, self._added(residual[images])

    def _room(self, *shape: int) -> Tensor:
        """Memory for crossed values, taken once: fresh pages cost as much as the sums."""
        size = math.prod(shape)
        if self._memory.numel() < size:
            self._memory = torch.empty(size)
        return self._memory[:size].view(shape)

    def _added(self, residual: Tensor) -> Tensor:
        """`crossed` by adding rows: of all clusters only an entry's own takes it."""
        images, tokens = residual.shape[:2]
        rows = residual.transpose(0, 1).reshape(tokens, -1)
        found = self._room(self.images, self.clusters, images * tokens)
        centre = (self.maps.mean(0).T @ rows).neg_()
        for own, labels in zip(found, self.labels, strict=True):
            # A map at a time, whose values are added to while they are in a CPU's cache.
            own.copy_(centre).index_add_(0, labels, rows)
        return found.view(self.images, self.clusters, images, tokens)

    def _added_pairs(self, residual: Tensor) -> Tensor:
        """The same where destinations are clusters: columns first, then rows."""
        images, tokens = residual.shape[:2]
        k = self.clusters
        columns = residual.permute(2, 1, 0).reshape(tokens, -1)
        found = self._room(self.images, k, images * k)
        for own, labels in zip(found, self.labels, strict=True):
            by_column = columns.new_zeros(k, columns.shape[1]).index_add_(0, labels, columns)
            rows = by_column.view(k, tokens, images).permute(1, 2, 0).reshape(tokens, -1)
            own.zero_().index_add_(0, labels, rows)
        found -= found.mean(0, keepdim=True)
        return found.view(self.images, k, images, k)

    def _multiplied(self, residual: Tensor, pairs: bool) -> Tensor:
        """The same as products, as accelerators want it."""
        tokens = residual.shape[1]
        rows = self.maps.transpose(1, 2).reshape(-1, tokens)
        part = residual.transpose(0, 1).reshape(tokens, -1)
        values = (rows @ part).view(self.images, self.clusters, -1, tokens)
        if pairs:
            values = torch.einsum("mkin,mnl->mkil", values, self.maps)
        values -= values.mean(0, keepdim=True)
        return values


def given_out(
    values: Float[Tensor, "map cluster some width"],
    orders: Int[Tensor, "draw image"],
    images: slice,
) -> Float[Tensor, "draw edge"]:
    """Sums of ``f(pi(b), b)`` of each permutation over some images of a block (see `crossed`)."""
    how = rows_added if values.device.type == "cpu" else rows_multiplied
    return how(values, orders[:, images])


def rows_added(
    values: Float[Tensor, "map cluster some width"], orders: Int[Tensor, "draw some"]
) -> Float[Tensor, "draw edge"]:
    """Add the rows that a permutation takes, few of all that there are, where they lie."""
    _, clusters, some, width = values.shape
    cluster, image = torch.arange(clusters), torch.arange(some)
    rows = (orders[:, None] * clusters + cluster[:, None]) * some + image
    found = F.embedding_bag(rows.flatten(0, 1), values.view(-1, width), mode="sum")
    return found.view(len(orders), clusters * width)


def rows_multiplied(
    values: Float[Tensor, "map cluster some width"], orders: Int[Tensor, "draw some"]
) -> Float[Tensor, "draw edge"]:
    """The same as a product, as accelerators want it."""
    maps, _, some, _ = values.shape
    flat = values.permute(0, 2, 1, 3).reshape(maps * some, -1)
    rows = orders * some + torch.arange(some, device=flat.device)
    return flat.new_zeros(len(orders), len(flat)).scatter_(1, rows, 1.0) @ flat


class Draws:
    """Permuted prototypes of the images of some blocks, and the effects that follow from them.

    Draw 0 permutes nothing, so that the observed effects are rounded as the others are and ties
    are ties. A block is read by one process alone: its values are summed in float32.
    """

    def __init__(
        self, shape: EdgeShape, draws: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.shape, self.draws, self.seed = shape, draws, seed
        size = (shape.heads, 1 + draws, shape.clusters * shape.width)
        self._values = torch.zeros(size, device=device)
        self._totals = Totals(device)
        self._totals.new("base", shape.heads, shape.clusters, shape.width)
        self._totals.new("rows", shape.clusters)
        self._totals.new("pairs", shape.clusters, shape.clusters)
        self._totals.new("images")
        self._orders = torch.empty(0, 0, dtype=torch.int64)

    @staticmethod
    def bytes_needed(shape: EdgeShape, draws: int) -> int:
        """Bytes of the permuted prototypes."""
        return 4 * shape.heads * (1 + draws) * shape.clusters * shape.width

    def begin(self, block: Block) -> None:
        """Count a block and choose its permutations."""
        per_image = block.maps.sum(1).double()
        self._totals.add("images", torch.tensor(float(block.images)))
        self._totals.add("rows", per_image.sum(0))
        self._totals.add("pairs", per_image.T @ per_image)
        self._orders = block.orders(self.draws, self.seed).to(block.maps.device)

    def add_base(self, heads: slice, base: Tensor) -> None:
        """Add the permutation mean of a block's sums ``[head, cluster, width]``."""
        self._totals.add("base", base, heads)

    def add(self, head: int, images: slice, values: Tensor, scale: float = 1.0) -> None:
        """Add crossed values of some of the block's images, times `scale`."""
        self._values[head].add_(given_out(values, self._orders, images), alpha=scale)

    def state(self) -> dict[str, Tensor]:
        """Everything, to go on from."""
        return {"values": self._values, **self._totals.state()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self._values.copy_(state["values"])
        self._totals.load(state)

    def reduce(self, world: World) -> None:
        """Bring the draws to the first process; blocks are not shared, so one has them all."""
        if world.size == 1:
            return
        self._totals.reduce(world)
        for part in world.gather({"values": self._values})[1:]:
            self._values += part["values"].to(self._values.device)

    def effects(self) -> dict[str, object]:
        """Observed effects, their null, and how often permuted prototypes are as far out.

        Returns
        -------
        dict
            ``exceed`` ``[cluster, head, width]`` (draws at least as far from the permutation
            mean as the data), ``ablation`` and ``injection`` ``[cluster]``, ``null_ablation`` and
            ``null_injection`` ``[draw, cluster]``, ``draws`` and ``draw_images``.
        """
        s, total = self.shape, self._totals
        pairs = total.value("pairs")
        rows = total.value("rows")
        support = pairs[:, None, :] if s.pairs else rows[:, None, None]
        entries = pairs if s.pairs else None
        base = total.value("base").transpose(0, 1) / support.clamp(min=1.0)
        null = torch.zeros(2, 1 + self.draws, s.clusters, dtype=torch.float64)
        exceed = torch.zeros_like(base)
        distance = torch.zeros_like(base)
        for draw in range(1 + self.draws):
            sums = self._values[:, draw].cpu().double()
            step = sums.view(s.heads, s.clusters, s.width).transpose(0, 1) / support.clamp(min=1.0)
            null[0, draw] = ablation_effects(base + step, entries)
            null[1, draw] = injection_effects(base + step, rows, entries)
            if draw == 0:
                distance = step.abs() * (1.0 - 1e-6)
            else:
                exceed += step.abs() >= distance
        return {
            "exceed": exceed,
            "ablation": null[0, 0],
            "injection": null[1, 0],
            "null_ablation": null[0, 1:],
            "null_injection": null[1, 1:],
            "draws": self.draws,
            "draw_images": round(float(total.value("images"))),
        }
