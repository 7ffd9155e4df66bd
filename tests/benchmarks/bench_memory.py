"""Memory of streaming at the largest shapes: 577 tokens, 16 heads, 23 pairs of layers.

``python tests/benchmarks/bench_memory.py CLUSTERS DESTINATION [BLOCK] [IMAGES]`` prints seconds and
GiB of one run; ``python tests/benchmarks/run.py memory-token memory-cluster`` makes the rows.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 96,
        "patch_size": 4,
        "width": 64,
        "head_width": 4,
        "layers": 24,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}
"""A small tower with the tokens, heads and layers of ViT-L/14 at 336 pixels."""
LIMIT_GIB = 16.0


def main(clusters: int, destination: str, block: int, images: int) -> None:
    """Stream all pairs and print what it took beside the model."""
    import torch

    from xaikit.images.scenes import SceneSource
    from xaikit.run.options import Options
    from xaikit.run.stream import stream
    from xaikit.run.subject import Subject
    from xaikit.towers import load_tower

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "large.json"
        config.write_text(json.dumps(CONFIG))
        tower = load_tower(str(config), "random")
    assert (tower.info.tokens, tower.info.heads, tower.info.layers) == (577, 16, 24)
    pairs = [(layer, layer + 1) for layer in range(23)]
    options = Options(
        recipe="seed",
        holdout=0.5,
        num_clusters=clusters,
        destination=destination,
        sample_tokens=2000,
        null_block=block,
        stream=True,
        memory=12 << 30,
    ).settled()
    subject = Subject(tower=tower, source=SceneSource(images, 0), options=options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Of the processor: other work on the machine shall not count.
    start = time.process_time()
    fits = []
    for group in stream(subject, pairs):
        for _, found in group.run():
            fits.append(found.fit(subject, found.features(subject, "trace")))
    assert len(fits) == len(pairs)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("RESULT", seconds, (peak - before) / 2**20)


def measured(clusters: int, destination: str) -> tuple[float, float]:
    """Seconds and GiB beside the model, in a process of its own."""
    command = [sys.executable, __file__, str(clusters), destination, "4", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    seconds, gib = (float(word) for word in line.split()[1:])
    return seconds, gib


def _row(destination: str) -> dict[str, Any]:
    few, _ = measured(64, destination)
    many, gib = measured(256, destination)
    return {
        "ours_s": gib,
        "reference_s": LIMIT_GIB,
        "ratio": gib / LIMIT_GIB,
        "limit": 1.0,
        "unit": "GiB",
        "notes": f"256 clusters, 577 tokens, 16 heads, 23 pairs, to {destination}s, blocks of 4 "
        f"images; {many:.0f} s against {few:.0f} s with 64 clusters: {many / few:.2f} times",
    }


def token() -> dict[str, Any]:
    """Edges to tokens."""
    return _row("token")


def cluster() -> dict[str, Any]:
    """Edges to clusters."""
    return _row("cluster")


if __name__ == "__main__":
    words = [*sys.argv[1:], "32", "64"]
    main(int(words[0]), words[1], int(words[2]), int(words[3]))
