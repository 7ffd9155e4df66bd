"""Ids of images: file names as valid Unicode, each different from every other."""

from __future__ import annotations

from collections import Counter

from xaikit.errors import UsageError


def unicode_name(name: str) -> str:
    """A file name as valid Unicode, so that JSON can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def require_distinct(ids: list[str], argument: str) -> None:
    """Refuse two images of one id, naming it: results could not be told apart.

    Bytes that are no Unicode are escaped, and another file may have the escaped name.
    """
    if len(set(ids)) < len(ids):
        ((twice, count),) = Counter(ids).most_common(1)
        raise UsageError(f"`{argument}=`: {count} images would have the id {twice!r}: rename one")


def counted(kinds: Counter[str], most: int = 4) -> str:
    """``6 without a suffix, 3 .heic``: the most frequent kinds first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {kind}" for kind, count in ordered[:most]]
    if len(ordered) > most:
        named.append(f"{sum(count for _, count in ordered[most:]):,} others")
    return ", ".join(named)
