"""`contrast`: edges by |contrast|, the part of a prototype that softmax can see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit


def _score(fit: Fit) -> Tensor:
    return fit.contrast.abs()


RANKING = Ranking(key="contrast", name="contrast", score=_score)
