"""Tracing ViT-B/16, layers 6→7, against the plain forward pass of the same images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import Names, in_turns, pixels, row

from xaikit.artifacts.candidates import Candidates
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.trace import TraceInfo
from xaikit.artifacts.trace_writer import writing
from xaikit.passes.record import captured
from xaikit.towers import Tower, load_tower

BATCH, BATCHES, PAIR = 16, 3, (6, 7)


def _tower() -> tuple[Tower, list[torch.Tensor]]:
    tower = load_tower("ViT-B-16", "random")
    return tower, list(pixels(tower, BATCH * BATCHES).split(BATCH))


def _encode(tower: Tower, batches: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            tower.module(batch)


def trace_memory() -> dict[str, Any]:
    """Captured and kept in memory."""
    tower, batches = _tower()

    def ours() -> list[Any]:
        return [captured(tower, batch, [PAIR]) for batch in batches]

    times = in_turns(ours, lambda: _encode(tower, batches))
    return row(*times, 0.70, f"{BATCH * BATCHES} images, batch {BATCH}, pixels in memory")


def trace_disk() -> dict[str, Any]:
    """Captured and written as float32, flushed to disk."""
    tower, batches = _tower()
    info = _info(tower)
    names = Names(BATCH * BATCHES)
    candidates = Candidates(names=names, content=lambda _: "i", own=range(len(names.ids)))
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            path = Path(folder) / "trace.safetensors"
            with writing(path, info, Storage(), candidates) as writer:
                for at, batch in enumerate(batches):
                    (found,) = captured(tower, batch, [PAIR])
                    writer.add(list(range(at * BATCH, at * BATCH + len(batch))), found)
                writer.finish()

        times = in_turns(ours, lambda: _encode(tower, batches))
    return row(*times, 0.80, f"{BATCH * BATCHES} images, batch {BATCH}, pixels in memory")


def _info(tower: Tower) -> TraceInfo:
    origin = Origin(
        model="ViT-B-16",
        pretrained="random",
        weights_fingerprint=tower.weights_fingerprint,
        images_fingerprint="",
    )
    return TraceInfo(
        provenance=Provenance(origin=origin, layer=PAIR[0], next_layer=PAIR[1]),
        images=[],
        groups=None,
        tokens=tower.info.tokens,
        heads=tower.info.heads,
        prefix_kinds=["class token"],
        width=tower.info.width,
        ffn_width=tower.info.ffn_width,
        grid=list(tower.info.grid),
    )
