"""What an objective is called, and what an edit does to it: lowers it, or raises it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.text import printable

if TYPE_CHECKING:
    from xaikit.artifacts.explanation import Explanation
    from xaikit.artifacts.results import Circuit, Intervention

_NAMED = {"margin": "the margin", "accuracy": "the accuracy"}


def direction(found: Intervention | Circuit | Explanation) -> str:
    """The objective of a direction in words, as text that is safe to show."""
    toward, against = (found.objective.get(name) for name in ("toward", "against"))
    if not toward:
        return _NAMED.get(found.objective.get("kind", ""), "the objective")
    return printable(f"“{toward}” against “{against}”" if against else f"“{toward}”")


def moved(fall: float, what: str, *, several: bool = False) -> str:
    """What a fall is in words: ``lowers it by 0.04``; one below zero ``raises it by 0.04``.

    Parameters
    ----------
    several : bool
        Whether it is several things that do it: ``lower it by 0.04``.
    """
    verb = ("raise" if fall < 0 else "lower") + ("" if several else "s")
    return f"{verb} {what} by {abs(fall):.3g}"


def full_words(metric: str, full: float) -> str:
    """The full effect of a metric in words: a distance, or what the objective does."""
    if metric == "cosine":
        return f"1 − cos = {full:.3g}"
    verb = "rises" if full < 0 else "falls"
    return f"{_NAMED.get(metric, 'the objective')} {verb} by {abs(full):.3g}"
