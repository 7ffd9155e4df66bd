"""How a stage says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``; ``what`` is a short noun such as ``"images"``,
behind a title and a colon where there are several stages (see `named`)."""


def named(progress: Progress, title: str) -> Progress:
    """Say `title` before each noun: ``layer 6, fit: images``."""
    return lambda what, done, total: progress(f"{title}: {what}", done, total)


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
