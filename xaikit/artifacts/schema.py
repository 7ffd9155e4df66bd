"""The one place that says what may stand in a file, and checks it when the file is read.

The annotations of the records are the schema of their JSON; what they cannot say is said here, by
the name of a key: ranges, choices, lists of one length. Stages trust what was loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin

from torch import Tensor

from xaikit.artifacts.files import again
from xaikit.artifacts.json_records import Graph, Manifest, Pass, Run, Shared
from xaikit.errors import UsageError
from xaikit.text import printable

LARGEST = 2**63 - 1
_SHARE = re.compile(
    r"(.*_)?([pq]value|share|shares|shared|survival|holdout|activation_rate|probability)"
)
_ROUNDING = 1e-9
_CHOICES = {
    "destination": ("token", "cluster"),
    "mode": ("remove", "keep"),
    "method": ("kmeans", "guided"),
    "prefix": ("own", "mixed"),
    "dst_kind": ("prefix", "sink", "patch", "cluster"),
    "side": ("for", "against", ""),
}
_ALONGSIDE = ("effects", "fractions", "edges", "mean", "low", "high")
"""Lists of a curve that have a number for each of its shares."""


STAGES: dict[str, Any] = {"manifest": Manifest, "run": Run, "pass": Pass, "graph": Graph}
"""Files that are no record of a class."""


def require_schema(
    path: object, fields: Mapping[str, Any], stage: str, *kinds: Any, whole: bool = True
) -> None:
    """Refuse a file whose fields are not what its stage says.

    Parameters
    ----------
    path : object
    fields : mapping
    stage : str
    *kinds : types
        Records that the fields are of; by default that of `STAGES`.
    whole : bool
        Whether it is an artefact, and says what all of them do.

    Raises
    ------
    UsageError
        Naming the file, the field, what it is and what it should be.
    """
    for kind in kinds or (STAGES[stage],):
        fault = _fault(fields, kind, "")
        if fault:
            raise UsageError(f"{path}: {fault}; it is no complete {stage} file: {again(stage)}")
    if kinds and whole:
        require_schema(path, fields, stage, Shared, whole=False)
        if fields["next_layer"] <= fields["layer"]:
            raise UsageError(
                f"{path}: next_layer is {fields['next_layer']}, expected one after layer "
                f"{fields['layer']}: {again(stage)}"
            )


def _fault(value: Any, kind: Any, where: str) -> str | None:
    """What is wrong with a value, in words that name it."""
    origin = get_origin(kind)
    if kind is Any:
        return None
    if origin is Annotated:
        return _fault(value, get_args(kind)[1], where)
    if origin in (Union, types.UnionType):
        faults = [_fault(value, each, where) for each in get_args(kind)]
        return None if None in faults else faults[0]
    if origin in (list, tuple):
        return _in_list(value, get_args(kind)[0], where)
    if origin is dict:
        return _in_dict(value, get_args(kind)[1], where)
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _in_record(value, kind, where)
    return _PLAIN[kind](value, where)


def _said(value: Any, expected: str, where: str) -> str:
    shown = printable(" ".join(repr(value)[:40].split()))
    return f"{printable(where) or 'the file'} is {shown}, expected {expected}"


def _key(where: str) -> str:
    return where.rpartition(".")[2].partition("[")[0]


def _number(value: Any, where: str) -> str | None:
    if type(value) not in (int, float):
        return _said(value, "a number", where)
    if _SHARE.fullmatch(_key(where)) and not -_ROUNDING <= value <= 1 + _ROUNDING:
        return _said(value, "a number in [0, 1]", where)
    return None


def _whole(value: Any, where: str) -> str | None:
    if type(value) is not int or not 0 <= value <= LARGEST:
        return _said(value, "a whole number of 0 or more", where)
    return None


def _text(value: Any, where: str) -> str | None:
    if type(value) is not str:
        return _said(value, "a text", where)
    choices = _CHOICES.get(_key(where))
    if choices and value not in choices:
        return _said(value, " or ".join(filter(None, choices)), where)
    return None


def _truth(value: Any, where: str) -> str | None:
    return None if type(value) is bool else _said(value, "true or false", where)


def _nothing(value: Any, where: str) -> str | None:
    return None if value is None else _said(value, "null", where)


_PLAIN: dict[Any, Callable[[Any, str], str | None]] = {
    float: _number,
    int: _whole,
    str: _text,
    bool: _truth,
    type(None): _nothing,
}


def _in_list(value: Any, kind: Any, where: str) -> str | None:
    if type(value) is not list:
        return _said(value, "a list", where)
    if kind in (int, str) and set(map(type, value)) <= {kind}:
        # Lists of a million images are looked at as a whole.
        if kind is int and value and not 0 <= min(value) <= max(value) <= LARGEST:
            return _said(min(value), "whole numbers of 0 or more", where)
        if kind is str or value:
            return None
    for at, each in enumerate(value):
        fault = _fault(each, kind, f"{where}[{at}]")
        if fault:
            return fault
    return None


def _in_dict(value: Any, kind: Any, where: str) -> str | None:
    if type(value) is not dict:
        return _said(value, "an object", where)
    for key, each in value.items():
        fault = _fault(each, kind, f"{where}.{key}")
        if fault:
            return fault
    return None


@functools.cache
def _hints(kind: Any) -> tuple[dict[str, Any], frozenset[str], frozenset[str]]:
    """Types of a record's keys, those that it must have, and those that may be empty objects."""
    found = typing.get_type_hints(kind, include_extras=True)
    if typing.is_typeddict(kind):
        # Its own list of required keys is wrong where annotations are text.
        free = {key for key, each in found.items() if get_origin(each) is NotRequired}
        kinds = {key: get_args(each)[0] if key in free else each for key, each in found.items()}
        return kinds, frozenset(set(found) - free), frozenset()
    # Tensors are in no JSON, see `tensor_schema`.
    own = {
        each.name: each
        for each in dataclasses.fields(kind)
        if each.name not in _OF_MEMORY and Tensor not in _kinds(found[each.name])
    }
    missing = dataclasses.MISSING
    needed = {
        name
        for name, each in own.items()
        if each.default is missing and each.default_factory is missing
    }
    empty = {name for name, each in own.items() if each.default_factory is dict}
    return {name: found[name] for name in own}, frozenset(needed), frozenset(empty)


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) or (kind,)


_OF_MEMORY = ("provenance", "identity", "path")


def _in_record(value: Any, kind: Any, where: str) -> str | None:
    if type(value) is not dict:
        return _said(value, "an object", where)
    kinds, needed, empty = _hints(kind)
    for key, inner in kinds.items():
        place = f"{where}.{key}" if where else key
        if key not in value:
            if key in needed:
                return f"{printable(where) or 'it'} lacks the field {key}"
            continue
        if not (key in empty and value[key] == {}):
            fault = _fault(value[key], inner, place)
            if fault:
                return fault
    return _together(value, kinds, where)


def _together(value: dict[str, Any], kinds: dict[str, Any], where: str) -> str | None:
    """Faults of several keys of one record."""
    if {"dst_token", "dst_cluster"} <= set(kinds):
        ends = (value.get("dst_token"), value.get("dst_cluster"))
        if (ends[0] is None) == (ends[1] is None):
            return _said(ends, "either a dst_token or a dst_cluster", where)
    if "shares" in kinds and isinstance(value["shares"], list):
        for key in _ALONGSIDE:
            if key in kinds and len(value.get(key, value["shares"])) != len(value["shares"]):
                return f"{printable(where)}.{key} has not one number for each of its shares"
    return None
