"""`attribution`: edges by what gradients say removing them does (edge attribution patching)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import attributed, edge_sums, midpoints, zero_tables
from xaikit.statistics.totals import as_float64

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.interventions.live import Live


def _score(live: Live) -> tuple[Tensor, ...]:
    """``Σ_{entries} ∂m/∂A · (M_pos − A)``, `m` the sum over images of the objective's effect.

    The gradient of ``1 − cos`` vanishes at the clean input, so it is averaged over
    ``ig_steps`` points on the way from `A` to `M_pos`, the middles of equal parts; with one step
    that is the gradient half-way. All edited layers share each backward pass.

    References
    ----------
    Syed, Rager and Conmy (2023), Attribution patching outperforms automated circuit discovery.
    Hanna, Pezzelle and Belinkov (2024), Have faith in faithfulness (EAP-IG).
    """
    return averaged(live, midpoints(live.options.ig_steps))


def averaged(live: Live, points: Sequence[float]) -> tuple[Tensor, ...]:
    """``∂m/∂A · (M_pos − A)`` summed over each edge's entries, the mean over points of the way.

    Parameters
    ----------
    live : Live
    points : sequence of float
        Parts of the way from the clean logits (0) to `M_pos` (1).
    """
    totals = zero_tables(live)
    for batch in live.batches(live.progress, "images attributed"):
        for t in points:
            for total, part, values in zip(totals, batch.sites, attributed(batch, t), strict=True):
                total += as_float64(edge_sums(values, part)).sum(0).cpu() / len(points)
    return tuple(totals)


RANKING = Ranking(
    key="attribution", name="attribution patching", score=_score, needs_model=True, signed=True
)
