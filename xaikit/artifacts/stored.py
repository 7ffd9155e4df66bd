"""Safetensors files as they are read: the header at once, each tensor checked where it is used."""

from __future__ import annotations

import functools
import math
import mmap
import os
import struct
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson
import torch

from xaikit.artifacts.digests import (
    BLOCK_BYTES,
    BLOCKS,
    DIGEST,
    DamagedError,
    block_digest,
    require_blocks,
    require_seal,
)
from xaikit.artifacts.files import again, existing_file, require_depth, require_stage
from xaikit.artifacts.tensorfile import DTYPE_NAMES, HEADER_LIMIT, ITEM_SIZES
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {name: getattr(torch, kind) for kind, name in DTYPE_NAMES.items()}
_AHEAD = 32
"""Blocks that are checked before they are asked for: tensors are read from front to back."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says before its tensors.

    Attributes
    ----------
    fields : dict
        Those that the artefact was written with.
    table : dict
        Name of each tensor to its ``dtype``, ``shape`` and ``data_offsets``.
    digest : str
        Of the header, and by the digests in it of the whole file.
    digests : dict
        Of each tensor's blocks.
    start : int
        Where the tensors' bytes start.
    """

    fields: dict[str, Any]
    table: dict[str, Any]
    digest: str
    digests: dict[str, list[str]]
    start: int

    def bytes_of(self, name: str) -> int:
        """Bytes of a tensor."""
        begin, end = self.table[name]["data_offsets"]
        return int(end - begin)


def read_header(path: str | Path, stage: str) -> Header:
    """Read a header; it is what was written, and the file is as long as it says.

    Raises
    ------
    UsageError
        Where the file is missing, truncated, damaged, no safetensors, or of another stage.
    """
    source = existing_file(path, stage)
    try:
        size = source.stat().st_size
        with source.open("rb") as file:
            data = _header_bytes(file, size)
        table = orjson.loads(data)
        metadata = table.pop("__metadata__", {})
        fields = {key: orjson.loads(value) for key, value in metadata.items()}
        require_stage(source, fields, stage)
        require_seal(data, fields, source, again(stage))
        require_depth(source, fields)
        end = _require_table(table)
    except (ValueError, TypeError, LookupError, AttributeError, struct.error):
        raise UsageError(
            f"{source} is damaged or no safetensors file; expected a {stage} file: {again(stage)}"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror or error}") from None
    start = 8 + len(data)
    if size != start + end:
        raise DamagedError(f"{source} is truncated or damaged: {again(stage)}")
    sizes = {name: entry["data_offsets"] for name, entry in table.items()}
    digests = require_blocks(
        fields.pop(BLOCKS, None),
        {name: end - begin for name, (begin, end) in sizes.items()},
        source,
        again(stage),
    )
    digest = fields.pop(DIGEST)
    return Header(fields=fields, table=table, digest=digest, digests=digests, start=start)


def _header_bytes(file: BinaryIO, size: int) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, HEADER_LIMIT):
        raise ValueError("header length")
    return file.read(length)


def _require_table(table: Mapping[str, Any]) -> int:
    """Bytes of all tensors, which lie one after the other."""
    at = 0
    for entry in sorted(table.values(), key=lambda entry: entry["data_offsets"]):
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if not all(type(extent) is int and extent >= 0 for extent in [*shape, begin, end]):
            raise ValueError("sizes")
        if begin != at or end - begin != math.prod(shape) * ITEM_SIZES[entry["dtype"]]:
            raise ValueError("offsets")
        at = end
    return at


class StoredTensors:
    """The tensors of a file, mapped; no byte is used whose block does not have its digest.

    Parameters
    ----------
    path : Path
    stage : str
    most : mapping of str to int
        Largest byte of some tensors, such as gates.
    """

    def __init__(self, path: Path, stage: str, most: Mapping[str, int] | None = None) -> None:
        self.path, self.stage, self._most = path, stage, most or {}
        self.header = read_header(path, stage)
        self._checks: dict[tuple[str, int], Future[None]] = {}
        try:
            with path.open("rb") as file:
                # Private pages: what a caller changes in place never reaches the file.
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None

    def names(self) -> list[str]:
        """Names of the tensors."""
        return list(self.header.table)

    def read(self, name: str, index: tuple[slice | int, ...] = ()) -> Tensor:
        """A tensor, or a slice of it whose first part is a range of its rows.

        Raises
        ------
        DamagedError
            Where its bytes are not those that were written.
        """
        entry = self.header.table[name]
        shape, dtype = entry["shape"], _DTYPES[entry["dtype"]]
        size = self.header.bytes_of(name)
        if not size:
            return torch.empty(shape, dtype=dtype)[index]
        rows = index[0] if index and isinstance(index[0], slice) else slice(None)
        start, stop, _ = rows.indices(shape[0]) if shape else (0, 1, 1)
        row = size // (shape[0] if shape else 1)
        if start < stop:
            self._require(name, start * row, stop * row)
        offset = self.header.start + entry["data_offsets"][0]
        data = torch.frombuffer(self._bytes, dtype=torch.uint8, count=size, offset=offset)
        if offset % dtype.itemsize:
            # Other programs need not align tensors.
            part = data.view(shape[0] if shape else 1, row)[rows].clone().view(dtype)
            return part.view(-1, *shape[1:])[(slice(None), *index[1:])] if shape else part.view(())
        return data.view(dtype).view(shape)[index]

    def require_whole(self) -> None:
        """Check every block of every tensor."""
        for name in self.names():
            for start in range(0, self.header.bytes_of(name), _AHEAD * BLOCK_BYTES):
                stop = min(start + _AHEAD * BLOCK_BYTES, self.header.bytes_of(name))
                self._require(name, start, stop)

    def _require(self, name: str, start: int, stop: int) -> None:
        """Wait for the checks of the blocks of some bytes; start those of the next ones."""
        first, after = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
        if after - first == 1 and len(self.header.digests[name]) == 1:
            if (name, 0) not in self._checks:
                self._check(name, 0)
                self._checks[name, 0] = _done()
            return
        ahead = min(after + min(after - first, _AHEAD), len(self.header.digests[name]))
        for block in range(first, ahead):
            if (name, block) not in self._checks:
                self._checks[name, block] = _pool().submit(self._check, name, block)
        for block in range(first, after):
            self._checks[name, block].result()

    def _check(self, name: str, block: int) -> None:
        begin, end = self.header.table[name]["data_offsets"]
        start = begin + block * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, end)
        at = self.header.start
        with memoryview(self._bytes) as whole, whole[at + start : at + stop] as data:
            found = block_digest(data)
        if found != self.header.digests[name][block]:
            raise DamagedError(
                f"{self.path}: {name} was changed or damaged after it was written (digest of its "
                f"bytes from {block * BLOCK_BYTES:,} on {found[:8]}…, expected "
                f"{self.header.digests[name][block][:8]}…): {again(self.stage)}"
            )
        if name in self._most:
            values = torch.frombuffer(
                self._bytes, dtype=torch.uint8, count=stop - start, offset=at + start
            )
            if int(values.max()) > self._most[name]:
                raise UsageError(
                    f"{self.path}: {name} holds {int(values.max())}, expected numbers up to "
                    f"{self._most[name]}: {again(self.stage)}"
                )


def read_tensors(path: str | Path, stage: str) -> tuple[Header, dict[str, Tensor]]:
    """Read a whole small safetensors artefact: its header and its tensors."""
    stored = StoredTensors(Path(path), stage)
    return stored.header, {name: stored.read(name).clone() for name in stored.names()}


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="xaikit-digests")


# The threads of a process are not there in one that was forked from it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _done() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done
