"""The null of all edges of ViT-B/16, against the trace of the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from timing import images, in_turns, row

from xaikit.artifacts.trace import Trace
from xaikit.passes.record import layer_pair
from xaikit.stages.trace import trace_layers
from xaikit.statistics.edge_null import token_null
from xaikit.statistics.sums import LogitSums
from xaikit.towers import load_tower

IMAGES, CLUSTERS = 64, 16


def bench_null() -> dict[str, Any]:
    """Exact moments and z-scores of all K·H·N edges, from a trace in memory."""
    tower = load_tower("ViT-B-16", "random")
    source = images(IMAGES, tower.info.image_size[0])
    pairs = [layer_pair(tower, None, None)]

    def record() -> Trace:
        return trace_layers(tower, source, pairs, max_images=IMAGES)[0]

    trace = record()
    count = len(trace)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLUSTERS, (count, tower.info.tokens), generator=generator)
    sums = LogitSums(CLUSTERS, tower.info.heads, tower.info.tokens)
    for indices, logits in trace.iter_logits():
        sums.add(labels[indices], logits)

    def null() -> None:
        token_null(trace, np.arange(count), labels, sums, draws=0, seed=0)

    times = in_turns(null, record, repeats=2)
    return row(*times, 0.10, f"{count} images, {CLUSTERS} clusters, no sampled permutations")
