"""Rankings of edges: each is one file that ends in one frozen `Ranking` record."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from xaikit.errors import UsageError
from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live

KEYS = ("weight", "contrast", "zscore", "energy", "output", "attribution", "reach", "rows")


def ranking(key: str) -> Ranking:
    """Look a ranking up by its key.

    Raises
    ------
    UsageError
        Naming the keys there are.
    """
    if key not in KEYS:
        raise UsageError(f"--rank {key}: expected one of {', '.join(KEYS)}")
    return import_module(f"xaikit.rankings.{key}").RANKING


def score_from_fit(key: str, fit: Fit) -> Tensor:
    """Scores ``[cluster, head, destination]`` of a ranking that needs the fit alone."""
    found = ranking(key)
    if found.needs_model:
        raise UsageError(f"--rank {key} needs the model: pass --model, --pretrained and the images")
    return found.score(fit)


def score(key: str, fit: Fit, live: Live) -> Tensor:
    """Scores ``[cluster, head, destination]`` of any ranking.

    Parameters
    ----------
    key : str
    fit : Fit
    live : Live
        The model on the discovery images; used where the ranking needs it.
    """
    found = ranking(key)
    return found.score(fit, live) if found.needs_model else found.score(fit)
