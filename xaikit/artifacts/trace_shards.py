"""The shards of a trace: a slice of the images each, and an index that names them."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.digests import DamagedError
from xaikit.artifacts.files import again, lies_beside, write_json
from xaikit.artifacts.gates import PACKED_GATES
from xaikit.artifacts.json_records import Index
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.stored import Header, StoredTensors
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "index.json"
QUERIES_KEYS = ("queries_l1", "keys_l1")
"""Scaled queries and keys of the next layer ``[image, head, token, dim]``, where recorded."""
_SHARD = re.compile(r"(?:part-(\d+)-of-(\d+)-)?shard-\d{5}\.safetensors")


@dataclass(frozen=True)
class Shard:
    """A slice of the images: a file, or tensors in memory."""

    start: int
    stop: int
    path: Path | None
    tensors: dict[str, Tensor] | None = None

    def read(self, name: str, index: tuple[slice | int, ...]) -> Tensor:
        if self.tensors is not None:
            return self.tensors[name][index]
        assert self.path is not None
        return self.opened().read(name, index)

    def opened(self) -> StoredTensors:
        """The file, its header read once for as long as it is the same file."""
        assert self.path is not None
        try:
            at = self.path.stat()
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror or error}") from None
        return _opened(str(self.path), at.st_mtime_ns, at.st_ino, at.st_size)


@functools.lru_cache(maxsize=4)
def _opened(path: str, *_state: int) -> StoredTensors:
    """An open file, kept because its header (all image ids) is slow to parse again."""
    return StoredTensors(Path(path), "trace", most={"ffn_gate_l": 1})


def info_of(path: Path, header: Header, *, whole: bool = True) -> TraceInfo:
    """What a file says beside its tensors, which go with it."""
    info = TraceInfo.from_fields(header.fields, path, whole=whole)
    _require_tensors(path, info, header.table, len(info.images))
    return info


def entries_of(index: Path, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The shards that an index names, which are files beside it."""
    require_schema(index, found, "trace", Index)
    shards: list[dict[str, Any]] = found["shards"]
    if not all(lies_beside(each["file"]) for each in shards):
        raise UsageError(f"{index} names shards in other folders: {again('trace')}")
    return shards


def continues(whole: TraceInfo, part: TraceInfo, start: int) -> bool:
    """Whether a shard holds the next images of a trace, read in the same way."""
    if part.images != whole.images[start : start + len(part.images)]:
        return False
    own, other = (
        (p.origin.weights_fingerprint, p.layer, p.next_layer, p.options, each.sizes)
        for each in (whole, part)
        for p in (each.provenance,)
    )
    return own == other


def _require_tensors(path: Path, info: TraceInfo, table: dict[str, Any], count: int) -> None:
    n, floats = info.tokens, ("F32", "F16", "BF16")
    packed = PACKED_GATES in table
    expected: dict[str, tuple[list[int], tuple[str, ...]]] = {
        "h_l": ([count, n, info.width], floats),
        "attn_logits_l1": ([count, info.heads, n, n], floats),
        PACKED_GATES if packed else "ffn_gate_l": (
            [count, n, -(-info.ffn_width // 8) if packed else info.ffn_width],
            ("U8",),
        ),
    }
    if "residual_norms_l1" in table:
        expected["residual_norms_l1"] = ([count, n], ("F32",))
    for name in QUERIES_KEYS if set(QUERIES_KEYS) & set(table) else ():
        width = (table.get(name, {}).get("shape") or [0])[-1]
        expected[name] = ([count, info.heads, n, width], floats)
    for name, (shape, dtypes) in expected.items():
        entry = table.get(name, {})
        if entry.get("shape") != shape or entry["dtype"] not in dtypes:
            raise UsageError(
                f"{path}: {name} has shape {entry.get('shape')} of {entry.get('dtype')}, expected "
                f"{shape} of {' or '.join(dtypes)}: {again('trace')}"
            )


def entry_of(file: Path, images: Sequence[str], digest: str) -> dict[str, object]:
    """What an index says of a shard."""
    return {"file": file.name, "images": len(images), "digest": digest}


def whole_header(file: Path) -> Header | None:
    """The header of a shard that holds what was written into it."""
    try:
        stored = StoredTensors(file, "trace")
        stored.require_whole()
    except DamagedError:
        return None
    return stored.header


def processes_of(name: str) -> tuple[int, int] | None:
    """Which process of how many wrote a shard, by its name."""
    found = _SHARD.fullmatch(name)
    return found and (int(found[1] or 0), int(found[2] or 1))


def write_index(folder: Path, info: TraceInfo, shards: list[dict[str, object]]) -> None:
    """Write the index that makes a folder of shards a trace."""
    write_json(folder / INDEX, {**info.fields(), "identity": info.identity, "shards": shards})
