"""The null of all edges of ViT-B/16, against the trace of the same images."""

from __future__ import annotations

from typing import Any

import torch
from timing import images, in_turns, row

from xaikit.artifacts.trace import Trace
from xaikit.passes.feed import StoredFeed
from xaikit.passes.pair_sums import SumOptions
from xaikit.passes.plan import make_plan
from xaikit.passes.record import layer_pair
from xaikit.passes.sums import SumsPass, position_means
from xaikit.passes.visitors import GivenLabels
from xaikit.progress import silent
from xaikit.stages.trace import trace_layers
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
    feed = StoredFeed(trace)
    plan = make_plan({"discovery": range(count)}, 0, 0)
    wanted = SumOptions(
        clusters=CLUSTERS, destination="token", draws=0, null_block=0, seed=0, controls=False
    )
    means = position_means(feed, plan, pairs, silent)

    def null() -> None:
        given = {pairs[0]: GivenLabels(labels, trace.info.candidate_positions())}
        run = SumsPass(feed, plan, wanted, means, given, memory=1 << 33)
        run.run(silent)
        rows = {pairs[0]: {"discovery": labels, "heldout": labels[:0]}}
        assert dict(run.statistics(rows, silent))

    times = in_turns(null, record, repeats=2)
    return row(
        *times, 0.10, f"{count} images, {CLUSTERS} clusters, sums included, no sampled permutations"
    )
