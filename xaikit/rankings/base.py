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
        ``score(fit)`` returns ``[cluster, head, destination]``; where `needs_model`,
        ``score(live)`` returns one such table for each edited layer. Higher is first.
    needs_model : bool
    signed : bool
        Whether scores of a scalar objective have its sign: above 0 pushes for it, below against.
    """

    key: str
    name: str
    score: Callable[..., Any]
    needs_model: bool = False
    signed: bool = False
