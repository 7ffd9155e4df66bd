"""Streaming: its cost beside the plain forward pass, its memory, and what two processes gain."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import images, in_turns, row

from xaikit.images import iter_batches
from xaikit.passes.feed import SeenBlock
from xaikit.passes.sums import SumsPass
from xaikit.passes.visitors import LabelImages
from xaikit.run.options import Options
from xaikit.run.stream import Group
from xaikit.run.subject import Subject
from xaikit.stages import fit
from xaikit.towers import load_tower

BLOCK = 32
LIMITS = {"stream": 1.6, "memory": 1.05, "processes": 0.65}


def stream() -> dict[str, Any]:
    """All 11 pairs of ViT-B/16: labels, sums and null of two blocks, against `encode_image`.

    The pass that learns clusters is left out: its cost is that of some 200 images, whatever the
    number of images.
    """
    tower = load_tower("ViT-B-16", "random")
    source = images(4 * BLOCK, tower.info.image_size[0])
    pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]
    options = Options(recipe="seed", holdout=0.5, sample_tokens=1500, stream=True).settled()
    subject = Subject(tower=tower, source=source, options=options)
    group = Group(subject, pairs, None)
    clusters, means = group._learn()
    assert options.num_clusters is not None
    labels = {
        pair: LabelImages(
            clusters[pair].labeller(), options.num_clusters, len(source), tower.info.tokens
        )
        for pair in pairs
    }
    sums = SumsPass(
        group.feed, group.plan, fit.sum_options(options.fit(), 16), means, labels, memory=1 << 33
    )
    parts = [block.part for block in group.plan.blocks]
    chosen = [group.plan.blocks[parts.index(name)] for name in ("discovery", "heldout")]
    visitors = {pair: [labels[pair], sums.norms[pair], sums.sums[pair]] for pair in pairs}
    pixels = {
        block.number: next(
            iter_batches(source, tower.preprocess, batch_size=BLOCK, indices=block.images.tolist())
        ).pixels
        for block in chosen
    }

    def ours() -> None:
        for block in chosen:
            seen = [(SeenBlock(block, block.images), slice(0, len(block.images)))]
            group.feed._show(seen, pixels[block.number], visitors)

    def plain() -> None:
        with torch.inference_mode():
            for block in chosen:
                tower.module(pixels[block.number])

    notes = f"{2 * BLOCK} images, half of them with 200 permutations; learning left out"
    return row(*in_turns(ours, plain, repeats=2), LIMITS["stream"], notes)


SCRIPT = """
import resource, sys, time, torch
torch.set_num_threads(1)
from xaikit.distributed import joined
from xaikit.images import open_images
from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.stream import stream
from xaikit.run.subject import Subject
from xaikit.towers import load_tower
model, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
tower = load_tower(model, "random")
pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]
source = open_images(images=folder[0], max_images=count) if folder else SceneSource(count, 0)
options = Options(
    recipe="seed", holdout=0.5, sample_tokens=2000, workers=1, stream=True, num_permutations=200
).settled()
with joined() as world:
    world.barrier()
    start = time.perf_counter()
    for group in stream(Subject(tower=tower, source=source, options=options, world=world), pairs):
        for _ in group.run():
            pass
    if world.leads:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT", time.perf_counter() - start, peak)
"""


def _streamed(
    count: int, processes: int = 1, model: str = "xaikit-demo", folder: str | None = None
) -> tuple[float, float]:
    """Seconds and peak MiB of streaming all layer pairs of a model, one thread a process."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "streamed.py"
        script.write_text(SCRIPT)
        command += [str(script), model, str(count), *([folder] if folder else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    seconds, peak = (float(word) for word in line.split()[1:])
    return seconds, peak


def stream_memory() -> dict[str, Any]:
    """Peak memory of 4,000 images against 400: demo scenes, five pairs of layers."""
    _, large = _streamed(4000)
    _, small = _streamed(400)
    notes = "peak resident memory of the demo tower, five layer pairs, token destinations"
    return row(large, small, LIMITS["memory"], notes, unit="MiB")


def processes() -> dict[str, Any]:
    """Two processes against one, one thread each: ViT-B/16 on photos where there are any."""
    folder = os.environ.get("XAIKIT_BENCH_IMAGES")
    model, count = ("ViT-B-16", 800) if folder else ("xaikit-demo", 3000)
    two, one = (_streamed(count, ranks, model, folder)[0] for ranks in (2, 1))
    notes = f"{model}, {count} images, all layer pairs, from the first image to the fits"
    return row(two, one, LIMITS["processes"], notes)
