"""`reach`: edges by how far removing them moves each image's embedding, per logit entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import edge_sums, moves

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live

DIRECTIONS = 12
"""Random directions of the embedding that a length is estimated from."""
HALF_WAY = 0.5


def _score(_fit: Fit, live: Live) -> Tensor:
    """``Σ_images ‖J (M_pos − A)_e‖ / entries``, `J` the embedding's Jacobian half-way to the mean.

    ``1 − cos`` is flat at the clean input, and to second order half the squared length of the
    embedding's move. A gradient of ``1 − cos`` sees of an edge only the part of its move that
    lies along the move of all edges together, and lets images cancel one another; this is the
    length of the edge's own move, image by image (a Gauss–Newton diagonal). Lengths are estimated
    from random directions, a backward pass each. Dividing by the entries that an edge covers
    orders edges by what an edited entry buys, since shares are of entries.
    """
    total = torch.zeros(live.shape, dtype=torch.float64)
    generator = torch.Generator().manual_seed(live.seed)
    directions: Tensor | None = None
    for batch in live.batches(live.progress, "images scored"):
        if directions is None:
            width = batch.clean.embedding.shape[-1]
            directions = torch.randn(DIRECTIONS, width, generator=generator, dtype=torch.float64)
            directions = directions.to(batch.labels.device)
        squares = sum(
            edge_sums(move.double(), batch).square() for move in moves(batch, HALF_WAY, directions)
        )
        total += torch.as_tensor(squares / DIRECTIONS).sqrt().sum(0).cpu()
    return total / live.counts[:, None, :].clamp(min=1.0)


RANKING = Ranking(key="reach", name="reach of the embedding", score=_score, needs_model=True)
