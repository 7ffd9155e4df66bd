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
from xaikit.statistics.totals import as_float64

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.interventions.batch import LiveBatch
    from xaikit.interventions.live import Live


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
    one layer is edited, one for all layers where several are.

    Of an objective that is a scalar it is ``Σ_images |g · (M_pos − A)|_e / entries``, `g` the
    scalar's gradient.
    """
    totals, count = zero_tables(live), backward_passes(live)
    for batch in live.batches(live.progress, "images scored"):
        lengths = _scalar(batch) if live.objective.signed else _lengths(batch, count)
        for total, length in zip(totals, lengths, strict=True):
            total += as_float64(length).sum(0).cpu()
    return per_entry(totals, live)


def backward_passes(live: Live) -> int:
    """Directions of each image: one where several layers are edited together."""
    layers = live.tower.info.layers
    return directions_for((layers - live.sites[0].layer) / layers) if len(live.sites) == 1 else 1


def _scalar(batch: LiveBatch) -> list[Tensor]:
    values = attributed(batch, HALF_WAY)
    return [edge_sums(v, part).abs() for v, part in zip(values, batch.sites, strict=True)]


def _lengths(batch: LiveBatch, count: int) -> list[Tensor]:
    """Estimated lengths of each edge's move, image by image."""

    def draw(shape: torch.Size) -> Tensor:
        return image_directions(batch.images, count, shape[-1], batch.live.options.seed)

    squares: list[Tensor] = []
    for values in moves(batch, HALF_WAY, draw):
        found = [edge_sums(v, part).square() for v, part in zip(values, batch.sites, strict=True)]
        squares = [a + b for a, b in zip(squares, found, strict=True)] if squares else found
    return [square.sqrt() / mean_norm(count) for square in squares]


def mean_norm(directions: int) -> float:
    """Mean length of a standard normal vector: what the root of a sum of squares overstates."""
    half = directions / 2
    return math.sqrt(2.0) * math.exp(math.lgamma(half + 0.5) - math.lgamma(half))


RANKING = Ranking(key="reach", name="reach of the embedding", score=_score, needs_model=True)
