"""`energy`: edges by the squared deviation from the position mean over the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit


def _score(fit: Fit) -> Tensor:
    return fit.energy


RANKING = Ranking(key="energy", name="residual energy", score=_score)
