"""Options of a stage: one frozen record that says each default, range and help text once.

The record stands in the stage's file. The stage takes it or its fields as keywords (`resolve`),
the command line makes its flags of it (`flags`, `applied`), and reuse compares what decides a
result (`deciding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from xaikit.artifacts.option_values import Option, in_range
from xaikit.errors import UnknownOptionError, UsageError

_KEY = "xaikit"
Record = TypeVar("Record")


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

    @property
    def typed(self) -> str:
        """What is typed, such as ``--max-images``."""
        return self.option.flag or "--" + self.name.replace("_", "-")


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
            changed[name] = in_range(name, known, hint, value)
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
