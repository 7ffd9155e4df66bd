"""The trace: one safetensors file, or a folder of shards with an index, read through one class."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.artifacts.digests import DamagedError
from xaikit.artifacts.display import Shown
from xaikit.artifacts.files import again, read_json
from xaikit.artifacts.gates import PACKED_GATES, unpack_gates
from xaikit.artifacts.stored import read_header
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.artifacts.trace_shards import (
    INDEX,
    QUERIES_KEYS,
    Shard,
    continues,
    entries_of,
    info_of,
)
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from xaikit.artifacts.records import Provenance

    ImageIndices = Sequence[int] | np.ndarray
    ImageRows = np.ndarray

__all__ = ["INDEX", "QUERIES_KEYS", "Trace", "TraceInfo"]


class Trace(Shown):
    """Recorded gates and attention logits, read in slices.

    Attributes
    ----------
    info : TraceInfo
    path : Path or None
        None for a trace that lives in memory.
    """

    def __init__(
        self, info: TraceInfo, shards: Sequence[Shard], names: set[str], path: Path | None
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
        info = info_of(source, header)
        return cls(info, [Shard(0, len(info.images), source)], set(header.table), source)

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
        for entry in entries_of(index, found):
            file = folder / entry["file"]
            header = read_header(file, "trace")
            part = info_of(file, header, whole=False)
            stop = start + len(part.images)
            if header.digest != entry["digest"] or not continues(info, part, start):
                raise DamagedError(f"{file} does not belong to {index}: {again('trace')}")
            shards.append(Shard(start, stop, file))
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
        return cls(info, [Shard(0, count, None, tensors)], set(tensors), None)

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
