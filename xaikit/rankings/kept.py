"""`kept`: edges by what keeping them restores of a model that is otherwise ablated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.attribution import averaged
from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.interventions.live import Live

POINTS = (0.95, 0.7, 0.4)
"""Parts of the way from the clean logits to their means."""


def _score(live: Live) -> tuple[Tensor, ...]:
    """``Σ_{entries} ∂m/∂A · (M_pos − A)``, as `attribution`, on the ablated half of the way.

    What is best removed is not what is best kept: where few edges are kept the model is near the
    one that has lost everything, and so are the points at which its gradient is taken here.
    """
    return averaged(live, POINTS)


RANKING = Ranking(
    key="kept", name="attribution, ablated side", score=_score, needs_model=True, signed=True
)
