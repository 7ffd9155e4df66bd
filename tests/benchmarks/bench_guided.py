"""Clusterings compared: what their edges explain, do in the live model, and how they agree.

``python tests/benchmarks/bench_guided.py --model timm/NAME --pretrained FILE --images DIR
--layer 6`` prints one line a clustering; `guided` and `guided_model` are rows of ``run.py``.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from timing import images, in_turns, row

from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.images import ImageSource, iter_batches, open_images
from xaikit.interventions import Live, LiveOptions, full_patch, order_edges, order_patch
from xaikit.rankings import score
from xaikit.run.measure import model_measure
from xaikit.run.options import Options
from xaikit.run.subject import Subject
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace
from xaikit.statistics.agreement import adjusted_rand_index
from xaikit.towers import Tower, load_tower

IMAGES, BATCH, LAYER = 48, 16, 6
SHARES = (0.01, 0.1)
WAYS = {
    "kmeans mixed": {"method": "kmeans", "prefix": "mixed"},
    "kmeans own": {"method": "kmeans", "prefix": "own"},
    "guided own": {"method": "guided", "prefix": "own"},
    "guided own, model": {"method": "guided", "prefix": "own", "model": True},
}


def _subject(tower: Tower, source: ImageSource) -> Subject:
    return Subject(tower=tower, source=source, options=Options(workers=1).settled())


def guided() -> dict[str, Any]:
    """Learning from a trace, without the model, against making the trace."""
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    source = images(IMAGES, tower.info.image_size[0])
    made = trace(tower, source, target_layer=LAYER, batch_size=BATCH)

    def ours() -> None:
        cluster(made, num_clusters=16, method="guided")

    def reference() -> None:
        trace(tower, source, target_layer=LAYER, batch_size=BATCH)

    return row(*in_turns(ours, reference), 0.5, f"{IMAGES} images, labels included")


def guided_model() -> dict[str, Any]:
    """Learning with the model's targets against plain forward passes of the same images."""
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    source = images(IMAGES, tower.info.image_size[0])
    made = trace(tower, source, target_layer=LAYER, batch_size=BATCH)
    measure = model_measure(_subject(tower, source))

    def ours() -> None:
        cluster(made, num_clusters=16, method="guided", measure=measure)

    def plain() -> None:
        with torch.inference_mode():
            for batch in iter_batches(source, tower.preprocess, batch_size=BATCH, limit=IMAGES):
                tower.encode(batch.pixels)

    return row(*in_turns(ours, plain), 3.0, f"{IMAGES} images, attention of layer {LAYER + 1}")


def _learnt(made: Trace, subject: Subject, way: dict[str, Any], **more: Any) -> Features:
    chosen = {key: value for key, value in way.items() if key != "model"}
    measure = model_measure(subject) if way.get("model") else None
    return cluster(made, num_clusters=16, holdout=0.27, measure=measure, **chosen, **more)


def _patches(features: Features) -> np.ndarray:
    return features.labels[features.heldout, features.info.prefix_tokens :].numpy().ravel()


def _live(made: Trace, subject: Subject, features: Features, destination: str) -> list[float]:
    """R-squared added, then the shares of the full effect that `reach` removes."""
    found = fit(
        made, features, destination=destination, num_permutations=1, null="moments", controls=False
    )
    added = found.heldout_r2["r2_position_cluster"] - found.heldout_r2["r2_position"]
    options = LiveOptions(batch_size=BATCH, workers=1)

    def live(chosen: list[int]) -> Live:
        return Live(
            subject.tower,
            subject.source,
            [(features, found)],
            ids=made.images,
            images=chosen,
            options=options,
        )

    held = live(features.heldout)
    scores = score("reach", live(features.discovery))
    order = order_edges("reach", scores, held.counts, held.support)
    whole, parts = held.measure([full_patch(held.shapes), order_patch(order, SHARES)])
    full = float(whole["cosine"].mean())
    return [added, *(float(part.mean()) / full for part in parts["cosine"])]


def main() -> None:
    """Print the figures of one pair of layers."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--model", "--pretrained", "--images"):
        parser.add_argument(name)
    parser.add_argument("--layer", type=int, default=LAYER)
    parser.add_argument("--count", type=int, default=176)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--no-live", action="store_true")
    given = parser.parse_args()
    tower = load_tower(given.model or "xaikit-demo", given.pretrained)
    whole = open_images(images=given.images, demo=given.images is None, max_images=None)
    every = np.linspace(0, len(whole) - 1, min(given.count, len(whole))).round().astype(int)
    source = _Some(whole, every.tolist())
    made = trace(tower, source, target_layer=given.layer, batch_size=BATCH, workers=1)
    subject = _subject(tower, source)
    for name in given.way or WAYS:
        way = WAYS[name]
        seeds = [_learnt(made, subject, way, start_seed=seed) for seed in (0, 1)]
        halves = [_learnt(made, subject, way, half=half) for half in (0, 1)]
        agree = [adjusted_rand_index(*map(_patches, pair)) for pair in (seeds, halves)]
        print(f"{name}: Rand index of seeds {agree[0]:.2f}, of halves {agree[1]:.2f}", flush=True)
        for destination in () if given.no_live else ("token", "cluster"):
            added, one, ten = _live(made, subject, seeds[0], destination)
            print(f"  to {destination}s: R² +{added:.4f}, share at 1 % {one:.3f}, 10 % {ten:.3f}")


class _Some:
    """Some images of a source."""

    def __init__(self, source: ImageSource, chosen: list[int]) -> None:
        self.ids = [source.ids[i] for i in chosen]
        self.groups = None
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self.ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def load(self, i: int) -> Any:
        """Image `i` of those chosen."""
        return self._source.load(self._chosen[i])


if __name__ == "__main__":
    main()
