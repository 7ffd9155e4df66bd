"""Rankings of edges: each is one file that ends in one frozen `Ranking` record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.errors import UsageError
from xaikit.rankings import (
    attribution,
    contrast,
    energy,
    kept,
    output,
    reach,
    rows,
    weight,
    zscore,
)
from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live

RANKINGS: dict[str, Ranking] = {
    each.RANKING.key: each.RANKING
    for each in (weight, contrast, zscore, energy, output, attribution, kept, reach, rows)
}
KEYS = tuple(RANKINGS)


def ranking(key: str) -> Ranking:
    """Look a ranking up by its key.

    Raises
    ------
    UsageError
        Naming the keys there are.
    """
    if key not in KEYS:
        raise UsageError(f"`rank={key}`: expected one of {', '.join(KEYS)}")
    return RANKINGS[key]


def score_from_fit(key: str, fit: Fit) -> Tensor:
    """Scores ``[cluster, head, destination]`` of a ranking that needs the fit alone."""
    found = ranking(key)
    if found.needs_model:
        raise UsageError(
            f"`rank={key}` needs the model: pass `model=`, `pretrained=` and the images"
        )
    scores: Tensor = found.score(fit)
    return scores


def score(key: str, live: Live) -> tuple[Tensor, ...]:
    """Scores of any ranking: a table ``[cluster, head, destination]`` for each edited layer.

    Parameters
    ----------
    key : str
    live : Live
        The model on the discovery images; run where the ranking needs it.
    """
    found = ranking(key)
    scores: tuple[Tensor, ...]
    if found.needs_model:
        scores = found.score(live)
    else:
        scores = tuple(found.score(site.fit) for site in live.sites)
    return scores
