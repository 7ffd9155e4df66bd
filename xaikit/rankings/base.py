"""What a ranking is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One way to order edges.

    Attributes
    ----------
    key : str
        What ``--rank`` takes.
    name : str
        For tables and legends.
    score : callable
        ``score(fit)``, or ``score(fit, live)`` where `needs_model`, returns
        ``[cluster, head, destination]``; higher is first.
    needs_model : bool
    """

    key: str
    name: str
    score: Callable[..., Any]
    needs_model: bool = False
