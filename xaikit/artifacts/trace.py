"""The trace: one safetensors file, or a folder of shards with an index, read through one class."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.digests import DamagedError
from xaikit.artifacts.display import Shown
from xaikit.artifacts.files import again, read_json
from xaikit.artifacts.gates import PACKED_GATES, unpack_gates
from xaikit.artifacts.json_records import Index
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.stored import Header, StoredTensors, read_header
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from xaikit.artifacts.records import Provenance

    ImageIndices = Sequence[int] | np.ndarray
    ImageRows = np.ndarray

__all__ = ["INDEX", "Trace", "TraceInfo"]

INDEX = "index.json"
QUERIES_KEYS = ("queries_l1", "keys_l1")
"""Scaled queries and keys of the next layer ``[image, head, token, dim]``, where recorded."""


@dataclass(frozen=True)
class _Shard:
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


class Trace(Shown):
    """Recorded gates and attention logits, read in slices.

    Attributes
    ----------
    info : TraceInfo
    path : Path or None
        None for a trace that lives in memory.
    """

    def __init__(
        self, info: TraceInfo, shards: Sequence[_Shard], names: set[str], path: Path | None
    ):
        self.info = info
        self.path = path
        self._shards = list(shards)
        self._names = names

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Open a trace file, or a folder of shards.

        Raises
        ------
        UsageError
            Where it is missing, damaged, incomplete or something else.
        """
        source = Path(path)
        if source.is_dir():
            return cls._load_folder(source)
        header = read_header(source, "trace")
        info = _info(source, header)
        return cls(info, [_Shard(0, len(info.images), source)], set(header.table), source)

    @classmethod
    def _load_folder(cls, folder: Path) -> Trace:
        index = folder / INDEX
        if not index.exists():
            raise UsageError(
                f"{folder} has no {INDEX}; expected a trace folder (an interrupted trace goes on "
                "when `xaikit trace` is run again with the same options)"
            )
        found = read_json(index, "trace")
        info = TraceInfo.from_fields(found, index)
        shards, start, names = [], 0, set()
        for entry in _entries(index, found):
            file = folder / entry["file"]
            header = read_header(file, "trace")
            part = _info(file, header, whole=False)
            stop = start + len(part.images)
            if header.digest != entry["digest"] or not _continues(info, part, start):
                raise DamagedError(f"{file} does not belong to {index}: {again('trace')}")
            shards.append(_Shard(start, stop, file))
            start, names = stop, set(header.table)
        if start != len(info.images):
            raise DamagedError(
                f"{folder} holds {start} of {len(info.images)} images: {again('trace')}"
            )
        return cls(info, shards, names, folder)

    def require_whole(self) -> None:
        """Check every number of every file, which is otherwise done where it is used.

        Raises
        ------
        DamagedError
            Where one is not what was written.
        """
        for shard in self._shards:
            if shard.path is not None:
                shard.opened().require_whole()

    @classmethod
    def from_tensors(cls, info: TraceInfo, tensors: dict[str, Tensor]) -> Trace:
        """A trace in memory; `tensors` carries the contract's names and shapes."""
        count = len(info.images)
        return cls(info, [_Shard(0, count, None, tensors)], set(tensors), None)

    def __len__(self) -> int:
        return len(self.info.images)

    @property
    def provenance(self) -> Provenance:
        """Model, images, layers and options."""
        return self.info.provenance

    @property
    def identity(self) -> str:
        """What later artefacts record of this trace."""
        return self.info.identity

    @property
    def images(self) -> list[str]:
        """Ids of the images."""
        return self.info.images

    @property
    def layer(self) -> int:
        """The layer whose FFN was read."""
        return self.provenance.layer

    @property
    def next_layer(self) -> int:
        """The layer whose attention was read."""
        return self.provenance.next_layer

    @property
    def h_l(self) -> Float[Tensor, "image token model"]:
        """Input of the target layer's FFN, float32."""
        return self._read("h_l", 0, len(self)).float()

    @property
    def ffn_gate_l(self) -> UInt8[Tensor, "image token ffn"]:
        """1 where the FFN's activation output is above zero."""
        return self.gates(0, len(self))

    @property
    def attn_logits_l1(self) -> Float[Tensor, "image head token token"]:
        """Attention logits of the next layer, float32."""
        return self.logits(0, len(self))

    def gates(self, start: int, stop: int) -> UInt8[Tensor, "image token ffn"]:
        """Gates of a range of images."""
        if PACKED_GATES in self._names:
            return unpack_gates(self._read(PACKED_GATES, start, stop), self.info.ffn_width)
        return self._read("ffn_gate_l", start, stop)

    def logits(
        self, start: int, stop: int, head: int | None = None, dst: int | None = None
    ) -> Tensor:
        """Logits of a range of images, float32 ``[image, (head,) token, (token)]``."""
        heads = slice(None) if head is None else slice(head, head + 1)
        columns = slice(None) if dst is None else slice(dst, dst + 1)
        found = self._read("attn_logits_l1", start, stop, heads, slice(None), columns).float()
        if dst is not None:
            found = found[..., 0]
        return found if head is None else found[:, 0]

    def gates_of(self, rows: ImageRows) -> UInt8[Tensor, "image token ffn"]:
        """Gates of some images, ascending."""
        return _gathered(self.gates, rows)

    def logits_of(self, rows: ImageRows, heads: slice) -> Float[Tensor, "image head token token"]:
        """Logits of some heads of some images, ascending, float32."""

        def read(start: int, stop: int) -> Tensor:
            return self._read("attn_logits_l1", start, stop, heads)

        return _gathered(read, rows).float()

    def queries_of(self, rows: ImageRows) -> Float[Tensor, "image head token dim"]:
        """Scaled queries of some images, ascending, float32."""
        return self._qk_of(QUERIES_KEYS[0], rows)

    def keys_of(self, rows: ImageRows) -> Float[Tensor, "image head token dim"]:
        """Keys of some images, ascending, float32."""
        return self._qk_of(QUERIES_KEYS[1], rows)

    def _qk_of(self, name: str, rows: ImageRows) -> Tensor:
        if name not in self._names:
            where = self.path or "the trace"
            raise UsageError(f"{where} holds no queries and keys: trace again with `store_qk=True`")
        return _gathered(functools.partial(self._read, name), rows).float()

    def residual_norms_of(self, rows: ImageRows) -> Float[Tensor, "image token"] | None:
        """Norm of each token's residual stream before the next layer; None where not recorded."""
        if "residual_norms_l1" not in self._names:
            return None
        return _gathered(functools.partial(self._read, "residual_norms_l1"), rows).float()

    def iter_logits(
        self,
        images: ImageIndices | None = None,
        *,
        head: int | None = None,
        chunk_bytes: int = 1 << 27,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield ``(image indices, logits)`` in chunks of about `chunk_bytes`, in image order."""
        heads = 1 if head is not None else self.info.heads
        step = max(1, chunk_bytes // (4 * heads * self.info.tokens**2))
        for chosen in self._chunks(images, step):
            yield chosen, _gathered(functools.partial(self.logits, head=head), chosen)

    def iter_gates(
        self, images: ImageIndices | None = None, *, chunk_bytes: int = 1 << 26
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield ``(image indices, gates)`` in chunks, in image order."""
        step = max(1, chunk_bytes // (self.info.tokens * self.info.ffn_width))
        for chosen in self._chunks(images, step):
            yield chosen, _gathered(self.gates, chosen)

    def _chunks(self, images: ImageIndices | None, step: int) -> Iterator[np.ndarray]:
        wanted = np.arange(len(self)) if images is None else np.sort(np.asarray(images, dtype=int))
        for start in range(0, len(wanted), step):
            yield wanted[start : start + step]

    def _read(self, name: str, start: int, stop: int, *rest: slice) -> Tensor:
        parts = [
            shard.read(
                name,
                (
                    slice(
                        max(start, shard.start) - shard.start, min(stop, shard.stop) - shard.start
                    ),
                    *rest,
                ),
            )
            for shard in self._shards
            if shard.start < stop and shard.stop > start
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _gathered(read: Callable[[int, int], Tensor], chosen: np.ndarray) -> Tensor:
    """Read ascending images run by run, so that scattered ones cost no more than themselves."""
    runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
    parts = [read(int(run[0]), int(run[-1]) + 1) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _info(path: Path, header: Header, *, whole: bool = True) -> TraceInfo:
    """What a file says beside its tensors, which go with it."""
    info = TraceInfo.from_fields(header.fields, path, whole=whole)
    _require_tensors(path, info, header.table, len(info.images))
    return info


def _entries(index: Path, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The shards that an index names, which are files beside it."""
    require_schema(index, found, "trace", Index)
    shards: list[dict[str, Any]] = found["shards"]
    if not all(Path(each["file"]).name == each["file"] for each in shards):
        raise UsageError(f"{index} names shards in other folders: {again('trace')}")
    return shards


def _continues(whole: TraceInfo, part: TraceInfo, start: int) -> bool:
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
