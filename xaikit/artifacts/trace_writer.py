"""Writing a trace as it is captured: one file, or shards that an interrupted run goes on from."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.files import fingerprint, read_header, replacing, write_json
from xaikit.artifacts.gates import PACKED_GATES, pack_gates
from xaikit.artifacts.options import option
from xaikit.artifacts.tensorfile import Column, ColumnWriter
from xaikit.artifacts.trace import INDEX, TraceInfo
from xaikit.errors import UsageError, XaikitError

if TYPE_CHECKING:
    from torch import Tensor

_NAMED_SKIPS = 1000
_SKIP_BYTES = 600


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How a trace is stored.

    Attributes
    ----------
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``, of `h_l` and the logits.
    packed_gates : bool
        Eight gates a byte.
    shard_images : int
        Images a shard; 0 writes a single file.
    """

    dtype: str = option(
        "float32",
        "Number format of h_l and the logits on disk.",
        flag="--store-dtype",
        choices=("float32", "float16", "bfloat16"),
    )
    packed_gates: bool = option(False, "Store eight gates a byte.")
    shard_images: int = option(
        0, "Images a shard; 0 writes a single file.", flag="--shard-size", least=0
    )

    def columns(self, info: TraceInfo) -> list[Column]:
        """The tensors of a trace file."""
        n = info.tokens
        gates = (
            Column(name=PACKED_GATES, dtype="uint8", shape=(n, -(-info.ffn_width // 8)))
            if self.packed_gates
            else Column(name="ffn_gate_l", dtype="uint8", shape=(n, info.ffn_width))
        )
        return [
            Column(name="attn_logits_l1", dtype=self.dtype, shape=(info.heads, n, n)),
            Column(name="h_l", dtype=self.dtype, shape=(n, info.width)),
            Column(name="residual_norms_l1", dtype="float32", shape=(n,)),
            gates,
        ]

    def image_bytes(self, info: TraceInfo) -> int:
        """Bytes on disk of one image."""
        return sum(column.image_bytes for column in self.columns(info))


class TraceWriter:
    """Collects batches into one file or into shards; use `opened`.

    Attributes
    ----------
    images : list of str
        Ids written so far, those of complete shards of an interrupted run included.
    cursor : int
        Index of the next candidate image of the source.
    """

    def __init__(
        self,
        path: Path,
        info: TraceInfo,
        storage: Storage,
        *,
        capacity: int,
        id_bytes: int,
        start: int = 0,
        prefix: str = "",
    ):
        self.path = path
        self.storage = storage
        self.images: list[str] = []
        self.groups: list[str] = []
        self.cursor = start
        self._prefix = prefix
        self._info = info
        self._capacity = capacity
        self._id_bytes = id_bytes
        self._shards: list[dict[str, object]] = []
        self._writer: ColumnWriter | None = None
        self._stack = contextlib.ExitStack()
        self._shard_start = 0
        self._skipped: list[list[str]] = []
        self._skipped_count = 0
        self._earlier_skips: tuple[list[list[str]], int] = ([], 0)

    def add(
        self,
        ids: list[str],
        groups: list[str] | None,
        tensors: Mapping[str, Tensor],
        *,
        cursor: int,
        skipped: list[tuple[str, str]],
    ) -> None:
        """Write a batch under the contract's names.

        `skipped` lists the images this run has skipped so far; those of an interrupted run that
        it goes on from are kept before them.
        """
        if len(self.images) + len(ids) > self._capacity:
            raise XaikitError(f"more than {self._capacity} images for one trace")
        stored = self._encode(tensors)
        done = 0
        while done < len(ids):
            writer = self._current()
            room = writer.capacity - writer.count
            part = slice(done, min(done + room, len(ids)))
            writer.append({name: tensor[part] for name, tensor in stored.items()})
            self.images += ids[part]
            self.groups += groups[part] if groups else []
            done = part.stop
            if done == len(ids):
                self.cursor = cursor
                named, count = self._earlier_skips
                both = [*named, *(list(item) for item in skipped[:_NAMED_SKIPS])]
                self._skipped = both[:_NAMED_SKIPS]
                self._skipped_count = count + len(skipped)
            if self.storage.shard_images and writer.count == writer.capacity:
                self._end_shard(partial_batch=done < len(ids))

    def finish(self) -> TraceInfo:
        """Write what is left, the header or the index, and return the finished trace's info."""
        info = self.finished_info()
        if not self.storage.shard_images:
            assert self._writer is not None
            self._writer.finish({**info.fields(), "identity": info.identity})
            self._stack.close()
            return info
        write_index(self.path, info, self.finish_shards())
        return info

    def finish_shards(self) -> list[dict[str, object]]:
        """Write what is left into a last shard; return all of them, for an index."""
        if self._writer is not None:
            self._end_shard(partial_batch=False)
        return self._shards

    def abandon(self) -> None:
        """Drop the unfinished file or shard."""
        import sys

        self._stack.__exit__(*sys.exc_info())

    def resume(self) -> None:
        """Take over the complete shards that an interrupted run with the same options left."""
        key = self._key()
        for number in range(1 << 30):
            file = self.path / self._shard_name(number)
            if not file.exists():
                break
            fields, _ = read_header(file, "trace")
            if fields.get("resume_key") != key:
                raise UsageError(
                    f"{self.path} holds shards of another trace; pass --force to write over them"
                )
            if fields["resume_cursor"] is None:
                break
            self.images += fields["images"]
            self.groups += fields["groups"] or []
            self.cursor = fields["resume_cursor"]
            self._skipped, self._skipped_count = fields["skipped"], fields["skipped_count"]
            self._shards.append({"file": file.name, "images": len(fields["images"])})
            self._shard_start = len(self.images)
        self._earlier_skips = (self._skipped, self._skipped_count)
        (self.path / INDEX).unlink(missing_ok=True)

    def _key(self) -> str:
        info = replace(self._info, images=[], groups=None)
        made = (info.source, info.provenance.options, self.storage.__dict__, self._capacity)
        return fingerprint(info.identity, *made)

    def _encode(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        dtype = getattr(torch, self.storage.dtype)
        stored = {name: tensors[name].to(dtype) for name in ("h_l", "attn_logits_l1")}
        stored["residual_norms_l1"] = tensors["residual_norms_l1"].float()
        gates = tensors["ffn_gate_l"].to(torch.uint8)
        if self.storage.packed_gates:
            stored[PACKED_GATES] = pack_gates(gates)
        else:
            stored["ffn_gate_l"] = gates
        return stored

    def _current(self) -> ColumnWriter:
        if self._writer is None:
            size = self.storage.shard_images
            capacity = min(size, self._capacity - len(self.images)) if size else self._capacity
            target = self.path / self._shard_name(len(self._shards)) if size else self.path
            self._stack = contextlib.ExitStack()
            temporary = self._stack.enter_context(replacing(target))
            named = min(_NAMED_SKIPS, 100 + capacity)
            self._writer = ColumnWriter(
                temporary,
                self.storage.columns(self._info),
                capacity=capacity,
                header_bytes=capacity * 2 * (self._id_bytes + 8) + named * _SKIP_BYTES + 65536,
            )
            self._stack.callback(self._writer.close)
        return self._writer

    def finished_info(self, start: int = 0) -> TraceInfo:
        """What the trace says of the images from `start` on."""
        groups = self.groups[start:] if self.groups else None
        origin = replace(self._info.provenance.origin, images_fingerprint=fingerprint(self.images))
        return replace(
            self._info,
            provenance=replace(self._info.provenance, origin=origin),
            images=self.images[start:],
            groups=groups,
            skipped=self._skipped,
            skipped_count=self._skipped_count,
        )

    def _shard_name(self, number: int) -> str:
        return f"{self._prefix}shard-{number:05d}.safetensors"

    def _end_shard(self, *, partial_batch: bool) -> None:
        assert self._writer is not None
        info = self.finished_info(self._shard_start)
        # A shard that ends inside a batch cannot be gone on from: its cursor is not known.
        fields = {
            **info.fields(),
            "resume_key": self._key(),
            "resume_cursor": None if partial_batch else self.cursor,
        }
        self._writer.finish(fields)
        self._stack.close()
        self._shards.append(
            {"file": self._shard_name(len(self._shards)), "images": len(info.images)}
        )
        self._writer = None
        self._shard_start = len(self.images)


def write_index(folder: Path, info: TraceInfo, shards: list[dict[str, object]]) -> None:
    """Write the index that makes a folder of shards a trace."""
    write_json(folder / INDEX, {**info.fields(), "identity": info.identity, "shards": shards})


@contextlib.contextmanager
def writing(
    path: str | Path,
    info: TraceInfo,
    storage: Storage,
    *,
    capacity: int,
    id_bytes: int,
    start: int = 0,
    prefix: str = "",
    force: bool = False,
) -> Iterator[TraceWriter]:
    """Open a trace for writing; a failure leaves complete shards, or nothing.

    Parameters
    ----------
    path : path
        A file, or with ``storage.shard_images`` a folder.
    capacity : int
        Most images that will be written.
    id_bytes : int
        Length of the longest image id or group name in UTF-8, for the header's room.
    start : int
        Index of the first candidate image.
    prefix : str
        Of the shards' names, where several processes write into one folder.

    Raises
    ------
    UsageError
        Where the disk has not enough room, or the folder holds another trace's shards.
    """
    target = Path(path)
    _require_room(target, storage.image_bytes(info) * capacity)
    writer = TraceWriter(
        target,
        info,
        storage,
        capacity=capacity,
        id_bytes=id_bytes,
        start=start,
        prefix=prefix,
    )
    if storage.shard_images:
        if target.is_file():
            raise UsageError(f"{target} is a file; a trace in shards needs a folder name")
        if force:
            for stale in [*target.glob(f"{prefix}shard-*.safetensors"), target / INDEX]:
                stale.unlink(missing_ok=True)
        writer.resume()
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise


def _require_room(target: Path, needed: int) -> None:
    folder = target.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"the trace would take {needed / 2**30:,.1f} GiB at {target}, "
            f"{free / 2**30:,.1f} GiB are free: pass a smaller --max-images, "
            "--store-dtype float16 or --packed-gates"
        )
