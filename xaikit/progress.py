"""How a stage says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``; ``what`` is a short noun such as ``"images"``."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
