"""Equal runs give equal bytes, and the batch size moves no statistic by more than 1e-6."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from trust.kit import ended
from trust.processes import Child
from trust.small_runs import content, difference, make, small_tower

_FAR = 1e-6
_SEED = {"recipe": "seed", "holdout": 0.5}
BYTES: dict[str, tuple[str, dict[str, Any]]] = {
    "the live model and all pictures": ("live", {}),
    "a trace in one file": ("stored", {}),
    "a trace in shards": ("shards", {}),
    "a streamed run": ("streamed", {}),
    "k-means, another seed": ("stored", {**_SEED, "seed": 7}),
    "another number of decoding threads": ("stored", {"workers": 3}),
}
"""Runs that are compared with one of another process, to the byte."""
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "batches of 1, a trace": ("stored", {"batch_size": 1}),
    "batches of 3, a trace": ("stored", {"batch_size": 3}),
    "batches of 64, a trace": ("stored", {"batch_size": 64}),
    "batches of 1, streamed": ("streamed", {"batch_size": 1}),
    "batches of 5, streamed": ("streamed", {"batch_size": 5}),
    "batches of 64, streamed, k-means": ("streamed", {"batch_size": 64, **_SEED}),
}
"""Runs that are compared with one of batches of two, number by number."""


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Make the first so many comparisons, of both kinds in turn, from the `seed`-th on."""
    pairs = [pair for both in zip(SIZES, BYTES, strict=True) for pair in both]
    chosen = [pairs[(seed + at) % len(pairs)] for at in range(min(cases, len(pairs)))]
    tower, failures = small_tower(), []
    with tempfile.TemporaryDirectory() as name:
        for at, what in enumerate(chosen):
            here, there = Path(name) / f"{at}-here", Path(name) / f"{at}-there"
            mode, changed = (BYTES | SIZES)[what]
            words = ended(lambda: make(here, mode, tower, **changed), seconds=60).failure  # noqa: B023
            if not words and what in BYTES:
                other = {name: value for name, value in changed.items() if name != "workers"}
                words = Child(there, mode, **other).wait()
                words = words or difference(content(there), content(here))
            elif not words:
                other = {name: value for name, value in changed.items() if name != "batch_size"}
                make(there, mode, tower, **other)
                words = "; ".join(_moved(here, there))
            if words:
                failures.append(f"{what}: {words}")
    return len(chosen), failures


def _moved(one: Path, other: Path) -> Iterator[str]:
    """Numbers of statistics that two runs do not share."""
    for name in ("features", "fit"):
        yield from _apart(name, *(load_file(each / f"{name}.safetensors") for each in (one, other)))
    for name in ("circuit", "causal", "target_causal"):
        read = (json.loads((each / f"{name}.json").read_bytes()) for each in (one, other))
        yield from _apart(name, *map(_numbers, read))


def _apart(name: str, found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    if found.keys() != wanted.keys():
        yield f"{name} has other entries"
    for key in found.keys() & wanted.keys():
        if not np.allclose(found[key], wanted[key], rtol=_FAR, atol=_FAR, equal_nan=True):
            yield f"{name} {key}: {found[key]} against {wanted[key]}"


def _numbers(value: Any, place: str = "") -> dict[str, float]:
    if isinstance(value, dict):
        return {k: n for key in value for k, n in _numbers(value[key], f"{place}.{key}").items()}
    if isinstance(value, list):
        return {k: n for i, v in enumerate(value) for k, n in _numbers(v, f"{place}[{i}]").items()}
    return {place: float(value)} if isinstance(value, int | float) else {}
