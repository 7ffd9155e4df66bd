"""What it costs to learn guided clusters, and to score edges by `reach`.

`study_clusters.py` says what the clusters are worth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from timing import images, in_turns, row

from xaikit.artifacts.trace import Trace
from xaikit.images import ImageSource, iter_batches
from xaikit.interventions import Live, LiveOptions
from xaikit.rankings import score
from xaikit.run.measure import model_measure
from xaikit.run.options import Options
from xaikit.run.subject import Subject
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace, trace_layers
from xaikit.towers import Tower, load_tower

IMAGES, BATCH, LAYER = 48, 16, 6
LAYERS = (0, 6, 9)


def _tower() -> tuple[Tower, ImageSource]:
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    return tower, images(IMAGES, tower.info.image_size[0])


def _processor(ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float]:
    return in_turns(ours, reference, clock=time.process_time)


def _plain(tower: Tower, source: ImageSource) -> Callable[[], None]:
    def plain() -> None:
        with torch.inference_mode():
            for batch in iter_batches(source, tower.preprocess, batch_size=BATCH, limit=IMAGES):
                tower.encode(batch.pixels)

    return plain


def _worst(
    ours: Callable[[Trace], Callable[[], object]], tower: Tower, source: ImageSource
) -> dict[str, Any]:
    """The pair of layers that takes most of plain forward passes of the same images."""
    pairs = [(layer, layer + 1) for layer in LAYERS]
    plain = _plain(tower, source)
    times = [
        _processor(ours(made), plain)
        for made in trace_layers(tower, source, pairs, batch_size=BATCH)
    ]
    every = ", ".join(
        f"{layer + 1}: {mine / theirs:.2f}"
        for layer, (mine, theirs) in zip(LAYERS, times, strict=True)
    )
    notes = f"{IMAGES} images, processor time, by layer of the attention {every}"
    return row(*max(times, key=lambda pair: pair[0] / pair[1]), 3.0, notes)


def guided() -> dict[str, Any]:
    """Learning from a trace, without the model, against making the trace."""
    tower, source = _tower()
    made = trace(tower, source, target_layer=LAYER, batch_size=BATCH)

    def ours() -> None:
        cluster(made, num_clusters=16, method="guided")

    def reference() -> None:
        trace(tower, source, target_layer=LAYER, batch_size=BATCH)

    notes = f"{IMAGES} images, labels included, processor time"
    return row(*_processor(ours, reference), 0.5, notes)


def guided_model() -> dict[str, Any]:
    """Learning with the model's targets against plain forward passes of the same images."""
    tower, source = _tower()
    subject = Subject(tower=tower, source=source, options=Options(workers=1).settled())
    measure = model_measure(subject)

    def ours(made: Trace) -> Callable[[], object]:
        return lambda: cluster(made, num_clusters=16, method="guided", measure=measure)

    return _worst(ours, tower, source)


def reach() -> dict[str, Any]:
    """Scoring all edges to clusters by `reach` against plain forward passes of the same images."""
    tower, source = _tower()

    def ours(made: Trace) -> Callable[[], object]:
        features = cluster(made, num_clusters=16, sample_tokens=2000)
        more: dict[str, Any] = {"num_permutations": 1, "null": "moments", "controls": False}
        found = fit(made, features, destination="cluster", **more)
        live = Live(
            tower,
            source,
            [(features, found)],
            ids=made.images,
            images=range(len(made)),
            options=LiveOptions(batch_size=BATCH),
        )
        return lambda: score("reach", live)

    return _worst(ours, tower, source)
