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
from xaikit.passes.sample import learn

from xaikit.distributed import World
from xaikit.images import SkippedImages, iter_batches
from xaikit.passes.plan import StreamOptions, make_plan
from xaikit.passes.sums import StreamSums
from xaikit.progress import silent
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
    options = StreamOptions(sample_tokens=1500, holdout=0.5, null_block=BLOCK, batch_size=BLOCK)
    plan = make_plan(source, tower.info.tokens, options)
    learnt = learn(tower, source, pairs, plan, options, World(), SkippedImages(), silent)
    sums = StreamSums(tower, pairs, plan, learnt, options, World())
    parts = [block.part for block in plan.blocks]
    chosen = [parts.index("discovery"), parts.index("heldout")]
    pixels = {
        at: next(
            iter_batches(
                source,
                tower.preprocess,
                batch_size=BLOCK,
                indices=plan.blocks[at].images.tolist(),
            )
        ).pixels
        for at in chosen
    }

    def ours() -> None:
        for at in chosen:
            sums._count = 0
            sums._add(at, plan.blocks[at].images, pixels[at])

    def plain() -> None:
        with torch.inference_mode():
            for at in chosen:
                tower.module(pixels[at])

    notes = f"{2 * BLOCK} images, half of them with 200 permutations; learning left out"
    return row(*in_turns(ours, plain, repeats=2), LIMITS["stream"], notes)


SCRIPT = """
import resource, sys, time, torch
torch.set_num_threads(1)
from xaikit.distributed import joined
from xaikit.images import open_images
from xaikit.images.scenes import SceneSource
from xaikit.run.stream import stream
from xaikit.passes.plan import StreamOptions
from xaikit.towers import load_tower
model, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
tower = load_tower(model, "random")
pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]
source = open_images(images=folder[0], max_images=count) if folder else SceneSource(count, 0)
options = StreamOptions(max_images=count, sample_tokens=2000, workers=1)
with joined() as world:
    world.barrier()
    start = time.perf_counter()
    stream(tower, source, pairs, options=options, world=world)
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
