"""How a trace is stored: number formats, packing, shards."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.gates import PACKED_GATES
from xaikit.artifacts.options import option
from xaikit.artifacts.tensorfile import Column
from xaikit.artifacts.trace_shards import QUERIES_KEYS
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from xaikit.artifacts.trace_info import TraceInfo


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
    store_qk : bool
        Also the next layer's queries and keys, in half precision: guided clusters learn from them.
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
    store_qk: bool = option(
        False, "Also store queries and keys, which guided clusters are learnt from."
    )

    def columns(self, info: TraceInfo, head_width: int | None = None) -> list[Column]:
        """The tensors of a trace file; a head is as wide as usual where it is not known yet."""
        n = info.tokens
        head = (info.heads, n, head_width or info.width // info.heads)
        names = QUERIES_KEYS if self.store_qk else ()
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
            *(Column(name=name, dtype="float16", shape=head) for name in names),
        ]

    def image_bytes(self, info: TraceInfo) -> int:
        """Bytes on disk of one image."""
        return sum(column.image_bytes for column in self.columns(info))


def require_room(target: Path, needed: int, what: str = "the trace") -> None:
    """See that the disk has room for so many bytes more.

    Raises
    ------
    UsageError
        Naming what is needed and what is free.
    """
    folder = target.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{what} would take {needed / 2**30:,.1f} GiB at {target}, "
            f"{free / 2**30:,.1f} GiB are free: pass a smaller `max_images=`, "
            "`store_dtype=float16` or `packed_gates=True`"
        )
