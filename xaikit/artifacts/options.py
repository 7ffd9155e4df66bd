"""Options of a stage: one frozen record that says each default, range and help text once.

The record stands in the stage's file. The stage takes it or its fields as keywords (`resolve`),
the command line makes its flags of it (`flags`, `applied`), and reuse compares what decides a
result (`deciding`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from xaikit.errors import OptionError, UnknownOptionError, UsageError

_KEY = "xaikit"
INT64 = 2**63 - 1
"""Whole numbers beyond it fit no header field and no generator's seed."""

_TOO_LARGE = "a number that 64 bits hold"

Record = TypeVar("Record")


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


def option(default: Any, help: str = "", **details: Any) -> Any:
    """A field of an options record; `details` are those of `Option`."""
    choices = tuple(details.pop("choices", None) or ())
    known = Option(help=help, choices=choices, **details)
    return field(default=default, metadata={_KEY: known})


def like(kind: Any, name: str, **changed: Any) -> Any:
    """A field that another record has, with another ``default`` or other details."""
    found = next(each for each in fields(kind) if each.name == name)
    default = changed.pop("default", found.default)
    return field(default=default, metadata={_KEY: replace(found.metadata[_KEY], **changed)})


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One option as the command line has it.

    Attributes
    ----------
    name : str
        Python name of the flag, unique within the command.
    option : Option
    hint : type
        Annotation of the field.
    places : tuple of tuple of str
        Where the value goes: attribute paths in the (nested) record.
    """

    name: str
    option: Option
    hint: Any
    places: tuple[tuple[str, ...], ...]


def flags(kind: Any) -> tuple[Flag, ...]:
    """The flags of a record and of the records in it; fields of one name share one flag."""
    found: dict[str, Flag] = {}
    for name, known, hint in _options(kind):
        if not isinstance(known, Option):
            for inner in flags(hint):
                places = tuple((name, *place) for place in inner.places)
                _add(found, replace(inner, places=places))
        elif known.help:
            stem = known.flag.lstrip("-").replace("-", "_") if known.flag else name
            _add(found, Flag(name=stem, option=known, hint=hint, places=((name,),)))
    return tuple(found.values())


def _add(found: dict[str, Flag], flag: Flag) -> None:
    before = found.get(flag.name)
    found[flag.name] = (
        flag if before is None else replace(before, places=before.places + flag.places)
    )


def value_of(record: Any, flag: Flag) -> Any:
    """What a record holds for a flag."""
    for name in flag.places[0]:
        record = getattr(record, name)
    return record


def applied(record: Record, given: Mapping[str, Any]) -> Record:
    """The record with the values of some flags, by their Python names, in every place they have.

    Raises
    ------
    OptionError
        Naming the option that is out of range.
    """
    for flag in flags(type(record)):
        if flag.name in given:
            for place in flag.places:
                record = _placed(record, place, given[flag.name])
    return checked(record)


def _placed(record: Any, place: tuple[str, ...], value: Any) -> Any:
    name, *rest = place
    inner = _placed(getattr(record, name), tuple(rest), value) if rest else value
    return replace(record, **{name: inner})


def resolve(kind: type[Record], options: Record | None, given: Mapping[str, Any]) -> Record:
    """The options of a stage that was called with a record, with keywords, or with both.

    Raises
    ------
    UnknownOptionError
        A keyword is no option; the nearest known one is named.
    OptionError
        A value is out of range.
    """
    if options is not None and not isinstance(options, kind):
        raise UsageError(f"options: expected {kind.__name__}, got {type(options).__name__}")
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise UnknownOptionError(f"{kind.__name__} has no option {name}: {hint}")
    return checked(replace(options or kind(), **given))  # type: ignore[type-var]


def checked(record: Record) -> Record:
    """The record with plain values, every one of them in its range.

    A record may bring a method ``check`` for what several options say together.

    Raises
    ------
    OptionError
        Naming the option, what was given and what was expected.
    """
    changed = {}
    for name, known, hint in _options(type(record)):
        value = getattr(record, name)
        if isinstance(known, Option):
            changed[name] = _value(name, known, hint, value)
        else:
            changed[name] = checked(value)
    record = replace(record, **changed)  # type: ignore[type-var]
    check = getattr(record, "check", None)
    if check is not None:
        check()
    return record


def deciding(record: Any) -> dict[str, Any]:
    """The options that decide a result, as they read back from JSON."""
    found: dict[str, Any] = {}
    for name, known, _ in _options(type(record)):
        value = getattr(record, name)
        if not isinstance(known, Option):
            found[name] = deciding(value)
        elif not known.idle:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _options(kind: Any) -> tuple[tuple[str, Option | None, Any], ...]:
    """Name, option (None for a record in the record) and annotation of each field."""
    hints = get_type_hints(kind)
    found = []
    for each in fields(kind):
        known = each.metadata.get(_KEY)
        if known is not None:
            found.append((each.name, known, hints[each.name]))
        elif is_dataclass(hints[each.name]):
            found.append((each.name, None, hints[each.name]))
    return tuple(found)


def all_at_zero(text: str) -> int | None:
    """Read a number, where the command line says 0 for all."""
    if not text.strip().isdigit():
        raise ValueError("a whole number, or 0 for all")
    return int(text) or None


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


def _value(name: str, known: Option, hint: Any, value: Any) -> Any:
    """One value, made plain and found in range."""
    kind, optional = plain_type(hint)
    if value is None and optional:
        return None
    item = item_type(hint)
    if item is None:
        return _scalar(name, known, kind, value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionError(name, value, "a list", flag=known.flag)
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
