"""Safetensors files: written whole, or image by image without holding them.

The safetensors package writes a file under a temporary name of its own, with a mode of its own,
and its header's fields in an order that differs from run to run; it cannot grow a tensor either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import torch
from torch import Tensor

from xaikit.artifacts.digests import (
    BLANK,
    BLOCK_BYTES,
    BLOCKS,
    DIGEST,
    BlockDigests,
    blocks_of,
    sealed,
)
from xaikit.artifacts.finite import require_finite
from xaikit.errors import UsageError, XaikitError

DTYPE_NAMES = {
    "float64": "F64",
    "int64": "I64",
    "float32": "F32",
    "int32": "I32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Of torch and of the format, widest first: a file's tensors lie in this order, so aligned."""
ITEM_SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
ITEM_SIZES |= {"I8": 1, "U8": 1, "BOOL": 1}
HEADER_LIMIT = 100_000_000
"""Bytes that readers of safetensors accept as a header."""
_MOVE = 64 << 20


def encode_header(fields: Mapping[str, Any]) -> dict[str, str]:
    """JSON-encode each value, since a safetensors header holds only strings."""
    require_finite(fields)
    return {
        key: orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        for key, value in fields.items()
    }


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, row-major."""
    data = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(data.view(torch.uint8).numpy().data)


def digests_of(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Digests of the blocks of each tensor."""
    return {name: blocks_of(tensor_bytes(tensor)) for name, tensor in sorted(tensors.items())}


def header_of(
    fields: Mapping[str, Any],
    digests: Mapping[str, list[str]],
    table: Mapping[str, Any],
    room: int = 0,
) -> tuple[bytes, str]:
    """A header and its digest, padded to whole words and to at least `room` bytes."""
    metadata = encode_header({DIGEST: BLANK, BLOCKS: digests, **fields})
    header = orjson.dumps({"__metadata__": metadata, **table})
    return sealed(header.ljust(max(room, -(-len(header) // 8) * 8)))


def write_whole(
    path: Path,
    tensors: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    digests: Mapping[str, list[str]] | None = None,
) -> None:
    """Write a safetensors file; equal tensors and fields give equal bytes."""
    order = list(DTYPE_NAMES)
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    for name, kind in kinds.items():
        if kind not in DTYPE_NAMES:
            raise XaikitError(f"{name} is of dtype {kind}, which is not written")
    names = sorted(tensors, key=lambda name: (order.index(kinds[name]), name))
    table: dict[str, Any] = {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        table[name] = {
            "dtype": DTYPE_NAMES[kinds[name]],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header, _ = header_of(fields, digests_of(tensors) if digests is None else digests, table)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            file.write(tensor_bytes(tensors[name]))


def narrowed(
    tensor: Tensor, dtype: torch.dtype, *, what: str, images: Sequence[str], instead: str
) -> Tensor:
    """A tensor ``[image, …]`` in another floating format, in which all of its values are finite.

    Parameters
    ----------
    tensor : Tensor
    dtype : torch.dtype
    what : str
        What the tensor is, with its layer, for the message.
    images : sequence of str
        Their ids.
    instead : str
        What to pass where a value does not fit.

    Raises
    ------
    UsageError
        A value is not finite in `dtype`; it names the image, and the head of a logit.
    XaikitError
        A value is not finite at all.
    """
    stored = tensor.to(dtype)
    if stored.numel() == 0 or all(bool(torch.isfinite(each)) for each in torch.aminmax(stored)):
        return stored
    place = torch.nonzero(~torch.isfinite(stored))[0].tolist()
    value = float(tensor[tuple(place)])
    head = f", head {place[1]}" if tensor.ndim == 4 else ""
    kind = str(dtype).removeprefix("torch.")
    if not math.isfinite(value):
        raise XaikitError(
            f"{what} of image {images[place[0]]}{head} is {value}: check the weights, or pass "
            "`precision=float32`"
        )
    raise UsageError(
        f"{what} of image {images[place[0]]}{head} is {value:.6g}, which {kind} cannot hold "
        f"(at most {torch.finfo(dtype).max:,.6g}): {instead}"
    )


@dataclass(frozen=True, kw_only=True)
class Column:
    """One tensor of a file under construction: its name, dtype and shape without the image axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def image_bytes(self) -> int:
        """Bytes that one image takes."""
        size = ITEM_SIZES[DTYPE_NAMES[self.dtype]]
        for extent in self.shape:
            size *= extent
        return size


def digest_bytes(columns: Sequence[Column], images: int) -> int:
    """Room that the digests of so many images take in a header, at most."""
    blocks = sum(-(-column.image_bytes * images // BLOCK_BYTES) for column in columns)
    # Sixteen digits, two escaped quotes, a comma; beside them the names.
    return 21 * blocks + 64 * len(columns)


class ColumnWriter:
    """Write tensors that grow along their first axis into one safetensors file.

    Space for `capacity` images is laid out in advance (sparse), each batch goes to its final
    place at once, and a file that ends up with fewer images is closed up in place: nothing is
    held in memory and nothing is copied in the usual case.

    Parameters
    ----------
    path : Path
        The temporary name to write to; the caller renames it.
    columns : sequence of Column
    capacity : int
        Most images the file can take.
    header_bytes : int
        Room for the header, which is written last.
    """

    def __init__(
        self, path: Path, columns: Sequence[Column], *, capacity: int, header_bytes: int
    ) -> None:
        self.columns = list(columns)
        self.capacity = capacity
        self.count = 0
        header_bytes += digest_bytes(self.columns, capacity)
        self._reserved = (header_bytes + 8 + 4095) // 4096 * 4096
        self._digests = {column.name: BlockDigests() for column in self.columns}
        self._file: BinaryIO = path.open("w+b")
        self._starts: dict[str, int] = {}
        offset = self._reserved
        for column in self.columns:
            self._starts[column.name] = offset
            offset += column.image_bytes * capacity

    def append(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the next images; each tensor is ``[image, *shape]`` of its column's dtype."""
        sizes = {len(tensor) for tensor in tensors.values()}
        if len(sizes) != 1 or set(tensors) != set(self._starts):
            raise XaikitError("a batch does not carry every tensor for the same images")
        (added,) = sizes
        if self.count + added > self.capacity:
            raise XaikitError(f"more than {self.capacity} images for one trace file")
        for column in self.columns:
            tensor = tensors[column.name].detach().cpu().contiguous()
            if tensor.shape[1:] != column.shape or str(tensor.dtype) != f"torch.{column.dtype}":
                raise XaikitError(
                    f"{column.name} is {tensor.dtype} {tuple(tensor.shape[1:])}, "
                    f"expected {column.dtype} {column.shape}"
                )
            self._file.seek(self._starts[column.name] + self.count * column.image_bytes)
            data = tensor_bytes(tensor)
            self._digests[column.name].update(data)
            self._file.write(data)
        self.count += added

    def finish(self, fields: Mapping[str, Any]) -> str:
        """Close up unused space and write the header, before the rename; return its digest."""
        table: dict[str, Any] = {}
        offset = 0
        for column in self.columns:
            length = column.image_bytes * self.count
            self._move(self._starts[column.name], self._reserved + offset, length)
            table[column.name] = {
                "dtype": DTYPE_NAMES[column.dtype],
                "shape": [self.count, *column.shape],
                "data_offsets": [offset, offset + length],
            }
            offset += length
        digests = {name: each.found() for name, each in sorted(self._digests.items())}
        header, digest = header_of(fields, digests, table, room=self._reserved - 8)
        if len(header) > self._reserved - 8:
            self._make_room(len(header), offset)
            header, digest = header_of(fields, digests, table, room=self._reserved - 8)
        self._file.truncate(self._reserved + offset)
        self._file.seek(0)
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._file.flush()
        return digest

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def _make_room(self, header_bytes: int, length: int) -> None:
        """Move the data up, its end first, where the header outgrew the room kept for it."""
        source, self._reserved = self._reserved, (header_bytes + 8 + 4095) // 4096 * 4096
        for stop in range(length, 0, -_MOVE):
            start = max(0, stop - _MOVE)
            self._file.seek(source + start)
            data = self._file.read(stop - start)
            self._file.seek(self._reserved + start)
            self._file.write(data)

    def _move(self, source: int, target: int, length: int) -> None:
        if source == target:
            return
        for done in range(0, length, _MOVE):
            self._file.seek(source + done)
            data = self._file.read(min(_MOVE, length - done))
            self._file.seek(target + done)
            self._file.write(data)
