"""`attribution`: edges by what gradients say removing them does (edge attribution patching)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import attributed, edge_sums, midpoints

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live


def _score(_fit: Fit, live: Live) -> Tensor:
    """``Σ_{entries} ∂m/∂A · (M_pos − A)``, `m` the sum of ``1 − cos`` over the images.

    The gradient of `m` vanishes at the clean input, so it is averaged over ``live.ig_steps``
    points on the way from `A` to `M_pos`, the middles of equal parts; with one step that is the
    gradient half-way.

    References
    ----------
    Syed, Rager and Conmy (2023), Attribution patching outperforms automated circuit discovery.
    Hanna, Pezzelle and Belinkov (2024), Have faith in faithfulness (EAP-IG).
    """
    total = torch.zeros(live.shape, dtype=torch.float64)
    for batch in live.batches(live.progress, "images attributed"):
        for t in midpoints(live.ig_steps):
            total += edge_sums(attributed(batch, t).double(), batch).sum(0).cpu() / live.ig_steps
    return total


RANKING = Ranking(key="attribution", name="attribution patching", score=_score, needs_model=True)
