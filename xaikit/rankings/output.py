"""`output`: edges by how much the head's output changes, without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import edge_sums
from xaikit.towers.projection import written_values

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live


def _score(_fit: Fit, live: Live) -> Tensor:
    """``Σ_{entries} (p − p_pos)² ‖W_O v_j‖²``, `p` the softmax of `A`, `p_pos` that of `M_pos`."""
    total = torch.zeros(live.shape, dtype=torch.float64)
    usual = live.position_mean.softmax(-1)
    for batch in live.batches(live.progress, "images scored"):
        call = batch.call()
        written = written_values(live.tower, live.layer, call).square().sum(-1)
        change = (call.logits().softmax(-1) - usual).square() * written.unsqueeze(2)
        total += edge_sums(change.double(), batch).sum(0).cpu()
    return total


RANKING = Ranking(key="output", name="output change", score=_score, needs_model=True)
