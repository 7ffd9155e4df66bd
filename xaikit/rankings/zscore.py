"""`zscore`: edges by |z| on the discovery images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit


def _score(fit: Fit) -> Tensor:
    return fit.discovery_zscores.abs()


RANKING = Ranking(key="zscore", name="permutation z-score", score=_score)
