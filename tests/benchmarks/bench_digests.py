"""Reading a trace of 2 GiB with the check of its digests, against reading it without."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from timing import Names, in_turns, row

from xaikit.artifacts import trace as traces
from xaikit.artifacts import trace_shards
from xaikit.artifacts.candidates import Candidates
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.stored import StoredTensors
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.artifacts.trace_writer import writing
from xaikit.passes.feed import ATTENTION, GATES, NORMS, SeenBlock, StoredFeed, Visitor, chunks

TOKENS, HEADS, WIDTH, GATE_WIDTH, BATCH = 197, 12, 768, 3072, 32
SIZE = int(os.environ.get("XAIKIT_BENCH_BYTES", 2 << 30))


class AddUp(Visitor):
    """The least that any statistic does: every number of a block is added up."""

    needs = frozenset({GATES, NORMS, ATTENTION})

    def __init__(self) -> None:
        self.total = 0.0

    def gates(self, block: SeenBlock, gates: torch.Tensor) -> None:
        self.total += float(gates.sum())

    def norms(self, block: SeenBlock, norms: torch.Tensor) -> None:
        self.total += float(norms.sum())

    def attention(self, block: SeenBlock, attention: Any) -> None:
        self.total += float(attention.logits(slice(0, HEADS)).sum())


def _written(path: Path) -> int:
    """Write a trace of at least `SIZE` bytes of what a pass reads; return its images."""
    origin = Origin(
        model="made-up", pretrained="none", weights_fingerprint="w", images_fingerprint=""
    )
    info = TraceInfo(
        provenance=Provenance(origin=origin, layer=6, next_layer=7),
        images=[],
        groups=None,
        tokens=TOKENS,
        heads=HEADS,
        prefix_kinds=["class token"],
        width=WIDTH,
        ffn_width=GATE_WIDTH,
        grid=[14, 14],
    )
    generator = torch.Generator().manual_seed(0)
    batch = {
        "h_l": torch.randn(BATCH, TOKENS, WIDTH, generator=generator),
        "attn_logits_l1": torch.randn(BATCH, HEADS, TOKENS, TOKENS, generator=generator),
        "residual_norms_l1": torch.rand(BATCH, TOKENS, generator=generator),
        "ffn_gate_l": torch.randint(0, 2, (BATCH, TOKENS, GATE_WIDTH), generator=generator),
    }
    count = -(-SIZE // (Storage().image_bytes(info) * BATCH)) * BATCH
    candidates = Candidates(names=Names(count), content=lambda _: "i", own=range(count))
    with writing(path, info, Storage(), candidates) as writer:
        for start in range(0, count, BATCH):
            writer.add(list(range(start, start + BATCH)), batch)
        writer.finish()
    return count


def digests() -> dict[str, Any]:
    """A pass over a stored trace, whose pages are in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.safetensors"
        blocks = chunks(np.arange(_written(path)), BATCH)

        def ours() -> float:
            # What was checked is remembered for as long as the file is open.
            trace_shards._opened.cache_clear()
            trace, visitor = traces.Trace.load(path), AddUp()
            StoredFeed(trace).visit(blocks, {(6, 7): [visitor]})
            return visitor.total

        def reference() -> float:
            with mock.patch.object(StoredTensors, "_require"):
                return ours()

        assert ours() == reference()
        times = in_turns(ours, reference, repeats=int(os.environ.get("XAIKIT_BENCH_REPEATS", 3)))
        size = path.stat().st_size
    return row(*times, 1.1, f"{size / 2**30:.2f} GiB, read from the page cache and added up")
