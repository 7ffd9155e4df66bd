"""`reach`: edges by how far removing them moves each image's embedding, per logit entry."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import (
    HALF_WAY,
    attributed,
    directions_for,
    edge_sums,
    image_directions,
    moves,
    per_entry,
    zero_tables,
)
from xaikit.rankings.shrinkage import toward_margins
from xaikit.statistics.totals import as_float64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xaikit.interventions.batch import LiveBatch
    from xaikit.interventions.live import Live

_LEFT = 1.1
"""Plain passes that are left for backward ones beside sums over edges."""


def _score(live: Live) -> tuple[Tensor, ...]:
    """``Σ_images ‖J (M_pos − A)_e‖ / entries``, `J` the embedding's Jacobian half-way to the mean.

    ``1 − cos`` is flat at the clean input, and to second order half the squared length of the
    embedding's move. A gradient of ``1 − cos`` sees of an edge only the part of its move that
    lies along the move of all edges together, and lets images cancel one another; this is the
    length of the edge's own move, image by image (a Gauss–Newton diagonal). Dividing by the
    entries that an edge covers orders edges by what an edited entry buys, since shares are of
    entries.

    Along a random normal direction a move of length `l` has a normal component of deviation `l`,
    whose mean size is ``l · √(2/π)``: directions drawn anew for every image make the sum over
    images unbiased with few backward passes a batch: as many as three plain passes pay for where
    one layer is edited (between one and two, some images have two), one for all layers where
    several are. The sum is then drawn toward its margins as far as its error asks for (see
    `xaikit.rankings.shrinkage`).

    Of an objective that is a scalar it is ``Σ_images |g · (M_pos − A)|_e / entries``, `g` the
    scalar's gradient.
    """
    totals, errors, done = zero_tables(live), zero_tables(live), 0
    counts = direction_counts(backward_passes(live), len(live.images))
    for batch in live.batches(live.progress, "images scored"):
        own = counts[done : done + len(batch.images)]
        done += len(batch.images)
        signed = live.objective.signed
        lengths = _scalar(batch) if signed else _lengths(batch, own)
        relative = torch.tensor(
            [0.0 if signed else relative_error(count) for count in own], dtype=torch.float64
        )
        for total, error, length in zip(totals, errors, lengths, strict=True):
            found = as_float64(length)
            total += found.sum(0).cpu()
            error += torch.einsum("b,bkhj->khj", relative.to(found.device), found.square()).cpu()
    drawn = [toward_margins(*pair) for pair in zip(totals, errors, strict=True)]
    return per_entry(drawn, live)


def backward_passes(live: Live) -> float:
    """Directions of an image, on average: one where several layers are edited together."""
    layers = live.tower.info.layers
    if len(live.sites) > 1:
        return 1.0
    return directions_for((layers - live.sites[0].layer) / layers, _LEFT)


def direction_counts(passes: float, images: int) -> list[int]:
    """Directions of each image: the first ones have one more, so that the mean is `passes`."""
    most = math.ceil(passes)
    more = round((passes - (most - 1)) * images)
    return [most] * more + [most - 1] * (images - more)


def _scalar(batch: LiveBatch) -> list[Tensor]:
    values = attributed(batch, HALF_WAY)
    return [edge_sums(v, part).abs() for v, part in zip(values, batch.sites, strict=True)]


def _lengths(batch: LiveBatch, counts: Sequence[int]) -> list[Tensor]:
    """Estimated lengths of each edge's move, image by image."""

    def draw(shape: torch.Size) -> Tensor:
        drawn = image_directions(batch.images, max(counts), shape[-1], batch.live.options.seed)
        wanted = torch.arange(max(counts))[:, None] < torch.tensor(counts)
        return drawn * wanted.unsqueeze(-1)

    squares: list[Tensor] = []
    for values in moves(batch, HALF_WAY, draw):
        found = [edge_sums(v, part).square() for v, part in zip(values, batch.sites, strict=True)]
        squares = [a + b for a, b in zip(squares, found, strict=True)] if squares else found
    norms = torch.tensor([mean_norm(count) for count in counts], device=squares[0].device)
    return [square.sqrt() / norms.view(-1, 1, 1, 1).to(square.dtype) for square in squares]


def mean_norm(directions: int) -> float:
    """Mean length of a standard normal vector: what the root of a sum of squares overstates."""
    half = directions / 2
    return math.sqrt(2.0) * math.exp(math.lgamma(half + 0.5) - math.lgamma(half))


def relative_error(directions: int) -> float:
    """Expected squared error of a length over the expected square of what is found for it."""
    return 1.0 - mean_norm(directions) ** 2 / directions


RANKING = Ranking(key="reach", name="reach of the embedding", score=_score, needs_model=True)
