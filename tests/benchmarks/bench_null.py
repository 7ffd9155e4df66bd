"""What the null of all edges costs beside the trace of the same images, ViT-B/16.

Run as ``python tests/benchmarks/bench_null.py [images]``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from xaikit.artifacts.trace import Trace
from xaikit.stages.trace import layer_pair, trace_layers
from xaikit.statistics.edge_null import token_null
from xaikit.statistics.sums import LogitSums
from xaikit.towers import load_tower

CLUSTERS = 16


class NoiseImages:
    """Images of noise at the model's own size, so that decoding costs the trace little."""

    groups = None

    def __init__(self, count: int, side: int) -> None:
        self.ids = [f"{i:04d}.png" for i in range(count)]
        self._side = side

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        pixels = np.random.default_rng(i).integers(0, 256, (self._side, self._side, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    def describe(self) -> dict[str, Any]:
        return {"kind": "noise"}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bench_null(images: int = 64, repeats: int = 3) -> dict[str, Any]:
    """Best of interleaved repeats: the moments of all edges, and the trace they are of."""
    tower = load_tower("ViT-B-16", "random")
    source = NoiseImages(images, tower.info.image_size[0])
    pairs = [layer_pair(tower, None, None)]
    found: list[Trace] = []

    def record() -> None:
        found[:] = trace_layers(tower, source, pairs)

    record()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLUSTERS, (images, tower.info.tokens), generator=generator)
    sums = LogitSums(CLUSTERS, tower.info.heads, tower.info.tokens)
    for indices, logits in found[0].iter_logits():
        sums.add(labels[indices], logits)

    def null() -> None:
        token_null(found[0], np.arange(images), labels, sums, draws=0, seed=0)

    null()
    times = [(seconds(null), seconds(record)) for _ in range(repeats)]
    ours, reference = (min(column) for column in zip(*times, strict=True))
    return {
        "name": "null of all edges, against the trace of the same images",
        "ours_s": ours,
        "reference_s": reference,
        "ratio": ours / reference,
        "limit": 0.10,
    }


if __name__ == "__main__":
    result = bench_null(*(int(argument) for argument in sys.argv[1:2]))
    print(", ".join(f"{key} {value}" for key, value in result.items()))
