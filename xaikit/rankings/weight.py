"""`weight`: edges by |P|."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit


def _score(fit: Fit) -> Tensor:
    return fit.prototypes.abs()


RANKING = Ranking(key="weight", name="mean logit", score=_score)
