"""`reach`: edges by how far removing them moves each image's embedding, per logit entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import directions_for, edge_sums, image_directions, moves

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live

HALF_WAY = 0.5


def _score(_fit: Fit, live: Live) -> Tensor:
    """``Σ_images ‖J (M_pos − A)_e‖ / entries``, `J` the embedding's Jacobian half-way to the mean.

    ``1 − cos`` is flat at the clean input, and to second order half the squared length of the
    embedding's move. A gradient of ``1 − cos`` sees of an edge only the part of its move that
    lies along the move of all edges together, and lets images cancel one another; this is the
    length of the edge's own move, image by image (a Gauss–Newton diagonal). Lengths are estimated
    from random directions, a backward pass each, as many as three plain passes pay for; every
    image has its own, so that a sum over images errs less than each of its terms. Dividing by the
    entries that an edge covers orders edges by what an edited entry buys, since shares are of
    entries.
    """
    total = torch.zeros(live.shape, dtype=torch.float64)
    layers = live.tower.info.layers
    count = directions_for((layers - live.layer) / layers)
    for batch in live.batches(live.progress, "images scored"):
        width = batch.clean.embedding.shape[-1]
        directions = image_directions(batch.images, count, width, live.seed)
        squares = sum(
            edge_sums(move.double(), batch).square()
            for move in moves(batch, HALF_WAY, directions.to(batch.labels.device))
        )
        total += torch.as_tensor(squares / count).sqrt().sum(0).cpu()
    return total / live.counts[:, None, :].clamp(min=1.0)


RANKING = Ranking(key="reach", name="reach of the embedding", score=_score, needs_model=True)
