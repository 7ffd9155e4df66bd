"""What one option takes: its range and choices, and the types that annotations name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from xaikit.errors import OptionError

INT64 = 2**63 - 1
"""Whole numbers beyond it fit no header field and no generator's seed."""

_TOO_LARGE = "a number that 64 bits hold"


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of one option beside its name, type and default.

    Attributes
    ----------
    help : str
        For ``--help``; an empty one keeps the option off the command line.
    flag : str, optional
        Such as ``--rank``; by default made of the name.
    panel : str, optional
        Of ``--help``.
    choices : tuple of str
        The values, or each item of a sequence, that are known; empty where any will do.
    least, most, below : float, optional
        Range; `below` is exclusive.
    some : bool
        A sequence of none is out of range.
    idle : bool
        The option decides no result, only how it is reached: batch size, threads, device.
    parse : callable, optional
        Reads the text after the flag, where that is not the value itself.
    metavar : str, optional
        What ``--help`` shows as the type.
    """

    help: str
    flag: str | None = None
    panel: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    below: float | None = None
    some: bool = False
    idle: bool = False
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None

    @property
    def expected(self) -> str:
        """The range in words."""
        if self.least is not None and self.below is not None:
            return f"a number in [{self.least:g}, {self.below:g})"
        if self.least is not None and self.most is not None:
            return f"a number in [{self.least:g}, {self.most:g}]"
        if self.least is not None:
            return f"{self.least:g} or more"
        return _TOO_LARGE if self.most is None else f"at most {self.most:g}"


def plain_type(hint: Any) -> tuple[Any, bool]:
    """An annotation without its None, and whether it had one."""
    if get_origin(hint) in (Union, UnionType):
        rest = [each for each in get_args(hint) if each is not NoneType]
        return (rest[0] if len(rest) == 1 else str), NoneType in get_args(hint)
    return hint, False


def item_type(hint: Any) -> Any:
    """The type of a sequence's items, or None where the annotation is no sequence."""
    origin = get_origin(plain_type(hint)[0])
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return get_args(plain_type(hint)[0])[0]
    return None


def in_range(name: str, known: Option, hint: Any, value: Any) -> Any:
    """One value, made plain and found in range."""
    kind, optional = plain_type(hint)
    if value is None and optional:
        return None
    item = item_type(hint)
    if item is None:
        return _scalar(name, known, kind, value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionError(name, value, "a list", flag=known.flag)
    if known.some and not value:
        raise OptionError(name, value, "at least one", flag=known.flag)
    return tuple(_scalar(name, known, item, each) for each in value)


def _scalar(name: str, known: Option, kind: Any, value: Any) -> Any:
    def wrong(expected: str) -> OptionError:
        return OptionError(name, value, expected, flag=known.flag)

    if known.choices:
        if value not in known.choices:
            raise wrong(f"one of {', '.join(known.choices)}")
        return str(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong("True or False")
        return value
    if kind not in (int, float):
        return value
    number = _number(kind, value)
    if number is None:
        raise wrong("a whole number" if kind is int else "a number")
    low = -INT64 if known.least is None else known.least
    high = INT64 if known.most is None else known.most
    if not low <= number <= high or (known.below is not None and number >= known.below):
        raise wrong(known.expected if number <= INT64 else _TOO_LARGE)
    return number


def _number(kind: type, value: Any) -> int | float | None:
    """A whole or a finite number; numpy's count, True and text do not."""
    if isinstance(value, bool | str) or value is None:
        return None
    try:
        found = operator.index(value) if kind is int else float(value)
    except (TypeError, ValueError):
        return None
    return found if isfinite(found) else None
