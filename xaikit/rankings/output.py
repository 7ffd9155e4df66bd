"""`output`: edges by how much the head's output changes, without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import edge_sums, zero_tables
from xaikit.statistics.totals import as_float64
from xaikit.towers.projection import written_values

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.interventions.live import Live


def _score(live: Live) -> tuple[Tensor, ...]:
    """``Σ_{entries} (p − p_pos)² ‖W_O v_j‖²``, `p` the softmax of `A`, `p_pos` that of `M_pos`."""
    totals = zero_tables(live)
    for batch in live.batches(live.progress, "images scored"):
        for total, part, call in zip(totals, batch.sites, batch.calls, strict=True):
            usual = part.position_mean.softmax(-1)
            written = written_values(live.tower, part.layer, call).square().sum(-1)
            change = (call.logits().softmax(-1) - usual).square() * written.unsqueeze(2)
            total += edge_sums(as_float64(change), part).sum(0).cpu()
    return tuple(totals)


RANKING = Ranking(key="output", name="output change", score=_score, needs_model=True)
