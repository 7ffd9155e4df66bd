"""What a file holds: shapes, metadata and health, whatever artefact it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import torch
from safetensors import SafetensorError, safe_open

from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.files import read_json, require_depth
from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.stored import StoredTensors
from xaikit.artifacts.studies import Baselines, ClusterSweep, Stability
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import INDEX
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

SLAB = 1 << 24
"""Numbers of a tensor that are read at a time."""
MOST = 1 << 28
"""Numbers of a tensor that are read at all; more is sampled evenly."""
MAY_BE_NAN = ("edge_zscores", "edge_pvalues", "edge_qvalues", "discovery_zscores")
"""Not given where clusters have seen the attention of every image."""


def inspect_file(path: str | Path) -> dict[str, Any]:
    """Describe an artefact, or any other safetensors or JSON file.

    Parameters
    ----------
    path : path
        A safetensors file, a JSON file, or the folder of a sharded trace.

    Returns
    -------
    dict
        ``file``, ``kind``, ``stage``, ``bytes``, ``fields`` (the metadata), ``tensors`` (name,
        dtype, shape, bytes, least, mean and largest value, values that are not finite) and
        ``health``, a list of what is wrong; empty where nothing is.

    Raises
    ------
    UsageError
        Where there is no such file, or it is neither.
    """
    source = Path(path)
    if not source.exists():
        raise UsageError(f"{source} does not exist; expected an artefact such as fit.safetensors")
    if source.is_dir():
        return _folder(source)
    if source.suffix == ".safetensors":
        return _tensors(source)
    if source.suffix == ".json":
        return _json(source)
    raise UsageError(f"{source}: expected a .safetensors or .json file, or a trace folder")


def _folder(folder: Path) -> dict[str, Any]:
    if not (folder / INDEX).exists():
        raise UsageError(
            f"{folder} is a folder without {INDEX}; name one of its files, or use `xaikit report` "
            "for a whole run"
        )
    found = _json(folder / INDEX)
    names = [str(shard.get("file", "")) for shard in found["fields"].get("shards", [])]
    parts = [_tensors(folder / name) for name in names if (folder / name).is_file()]
    missing = [name for name in names if not (folder / name).is_file()]
    found["tensors"] = [dict(row, file=p["file"]) for p in parts for row in p["tensors"]]
    found["bytes"] += sum(part["bytes"] for part in parts)
    found["health"] += [f"{name} is missing" for name in missing]
    found["health"] += [f"{Path(p['file']).name}: {line}" for p in parts for line in p["health"]]
    return {**found, "file": str(folder), "kind": "folder of shards"}


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path} is not valid JSON ({error})") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{path} holds no JSON object; it is no xaikit artefact")
    require_depth(path, fields)
    return _described(path, "JSON", fields, [])


def _tensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            # The header has them in no order.
            named = sorted((file.metadata() or {}).items())
            fields = {key: _decoded(value) for key, value in named}
            rows = [_tensor(name, file.get_slice(name)) for name in sorted(file.keys())]
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged or no safetensors file ({error})") from None
    require_depth(path, fields)
    return _described(path, "safetensors", fields, rows)


def _decoded(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _described(
    path: Path, kind: str, fields: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    stage = fields.get("stage")
    health = [] if isinstance(stage, str) else ["not an xaikit artefact: it names no stage"]
    for row in rows:
        if row["not_finite"] and row["name"] not in MAY_BE_NAN:
            health.append(f"{row['name']}: {row['not_finite']:,} values are not finite")
    fault = _fault(path, stage) if isinstance(stage, str) else None
    if fault is not None:
        health.append(fault)
    elif kind == "safetensors" and stage in CHECKS:
        health += CHECKS[str(stage)](path)
    return {
        "file": str(path),
        "kind": kind,
        "stage": stage if isinstance(stage, str) else None,
        "bytes": path.stat().st_size,
        "fields": fields,
        "tensors": rows,
        "health": health,
    }


def _tensor(name: str, view: Any) -> dict[str, Any]:
    shape = [int(extent) for extent in view.get_shape()]
    count, least, largest, total, bad = 0, np.inf, -np.inf, 0.0, 0
    dtype, size = str(view.get_dtype()), 0
    for slab in _slabs(view, shape):
        size = slab.element_size()
        values = slab.double() if slab.dtype != torch.bool else slab.to(torch.float64)
        finite = values[torch.isfinite(values)]
        bad += values.numel() - finite.numel()
        if finite.numel():
            count += finite.numel()
            least, largest = min(least, float(finite.min())), max(largest, float(finite.max()))
            total += float(finite.sum())
    numbers = int(np.prod(shape)) if shape else 1
    return {
        "name": name,
        "dtype": dtype,
        "shape": shape,
        "bytes": numbers * size,
        "min": least if count else None,
        "mean": total / count if count else None,
        "max": largest if count else None,
        "not_finite": bad,
        "sampled": numbers > MOST,
    }


def _slabs(view: Any, shape: list[int]) -> Iterator[Tensor]:
    """The tensor in slices of its first axis; evenly spread ones of a very large one."""
    if not shape:
        yield view[...]
        return
    row = int(np.prod(shape[1:])) or 1
    step = max(1, SLAB // row)
    starts = range(0, shape[0], step)
    stride = max(1, -(-(shape[0] * row) // MOST))
    for start in starts[::stride]:
        yield view[start : start + step]


def _fault(path: Path, stage: str) -> str | None:
    """What a reader of a stage's file refuses, if anything."""
    try:
        if stage == "trace" and path.suffix == ".safetensors":
            StoredTensors(path, stage).require_whole()
        elif stage in LOADERS and path.name != INDEX:
            LOADERS[stage](path)
        elif path.suffix == ".json":
            read_json(path, stage)
        else:
            StoredTensors(path, stage).require_whole()
    except UsageError as error:
        return str(error)
    return None


def _features(path: Path) -> list[str]:
    found = Features.load(path)
    said = []
    empty = int((found.cluster_sizes == 0).sum())
    if empty:
        said.append(f"{empty} of {found.num_clusters} clusters are empty")
    if not found.heldout:
        said.append("nothing was held out")
    return said


def _fit(path: Path) -> list[str]:
    found = Fit.load(path)
    without = torch.isnan(found.edge_pvalues) | found.untestable
    said = []
    if bool(without.any()):
        edges = without.numel()
        said.append(f"{int(without.sum()):,} of {edges:,} edges are not testable")
    if not found.testable:
        said.append("no image to test on: guided clusters have seen the attention of all")
    return said


LOADERS: dict[str, Callable[[Path], Any]] = {
    kind.STAGE: kind.load
    for kind in (
        *(Features, Fit, Circuit, Causal, TargetCausal, Intervention),
        *(Baselines, Stability, ClusterSweep, GroupCircuits, Explanation),
    )
}
CHECKS: dict[str, Callable[[Path], list[str]]] = {"cluster": _features, "fit": _fit}


def shown_value(value: Any, most: int = 70) -> str:
    """A field in a table's cell: long lists by their length, long text cut."""
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value):,} items"
    if isinstance(value, dict) and len(orjson.dumps(value)) > most:
        return f"{len(value):,} entries: {', '.join(list(value)[:6])}"[:most]
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
