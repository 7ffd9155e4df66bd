"""A removal curve of one ranking against plain forward passes of the same images."""

from __future__ import annotations

from typing import Any

import torch
from timing import images, in_turns, row

from xaikit.artifacts.tensors import Features, Fit
from xaikit.images import ImageSource, iter_batches
from xaikit.interventions import SHARES, Live, LiveOptions, order_patch, random_order
from xaikit.rankings.live import joint_scores
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace, trace_layers
from xaikit.towers import Tower, load_tower

IMAGES, BATCH, LAYER = 32, 16, 5


def _parts(tower: Tower, source: ImageSource) -> tuple[list[str], Features, Fit]:
    traced = trace(tower, source, target_layer=LAYER, max_images=IMAGES)
    features = cluster(traced, num_clusters=16, sample_tokens=2000)
    found = fit(traced, features, num_permutations=1, null="moments", controls=False)
    return list(traced.images), features, found


def intervene() -> dict[str, Any]:
    """Ten points of one curve; earlier blocks run once, the edited one and later ones ten times."""
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    source = images(IMAGES, tower.info.image_size[0])
    ids, features, found = _parts(tower, source)
    chosen = range(len(ids))
    options = LiveOptions(batch_size=BATCH)
    live = Live(tower, source, [(features, found)], ids=ids, images=chosen, options=options)
    order = random_order(live.counts, live.shapes, [0])
    shares = list(SHARES)
    assert len(shares) == 10

    def curve() -> None:
        live.measure([order_patch(order, shares)])

    def plain() -> None:
        with torch.inference_mode():
            for batch in iter_batches(source, tower.preprocess, batch_size=BATCH, limit=IMAGES):
                tower.encode(batch.pixels)

    layers = tower.info.layers
    after = (layers - 1 - live.sites[0].layer) / layers
    notes = (
        f"{len(ids)} images, attention of layer {live.sites[0].layer} of {layers}: at most "
        f"1.25 × (10 × {after:.2f} + 1) plain passes"
    )
    return row(*in_turns(curve, plain), 1.25 * (10 * after + 1), notes)


def _whole(tower: Tower, source: ImageSource) -> tuple[list[str], list[tuple[Features, Fit]]]:
    """Clusters and fits to clusters of all pairs of layers."""
    pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]
    traces = trace_layers(tower, source, pairs, max_images=IMAGES)
    parts = []
    for traced in traces:
        features = cluster(traced, num_clusters=16, sample_tokens=2000)
        found = fit(
            traced,
            features,
            destination="cluster",
            num_permutations=1,
            null="moments",
            controls=False,
        )
        parts.append((features, found))
    return list(traces[0].images), parts


def whole_scores() -> dict[str, Any]:
    """Scores of all layers from one backward pass a batch, against those of the lowest alone."""
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    source = images(IMAGES, tower.info.image_size[0])
    ids, parts = _whole(tower, source)
    options = LiveOptions(batch_size=BATCH, ig_steps=1)

    def scored(some: list[tuple[Features, Fit]]) -> None:
        joint_scores(["attribution"], tower, source, some, ids=ids, options=options)

    notes = f"{len(ids)} images, attention of layers 1 to {tower.info.layers - 1}"
    return row(*in_turns(lambda: scored(parts), lambda: scored(parts[:1])), 1.3, notes)


def whole_curve() -> dict[str, Any]:
    """Ten points of one curve over the entries of all layers, against plain forward passes."""
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    source = images(IMAGES, tower.info.image_size[0])
    ids, parts = _whole(tower, source)
    options = LiveOptions(batch_size=BATCH)
    live = Live(tower, source, parts, ids=ids, images=range(len(ids)), options=options)
    order = random_order(live.counts, live.shapes, [0])

    def curve() -> None:
        live.measure([order_patch(order, list(SHARES))])

    def plain() -> None:
        with torch.inference_mode():
            for batch in iter_batches(source, tower.preprocess, batch_size=BATCH, limit=IMAGES):
                tower.encode(batch.pixels)

    notes = f"{len(ids)} images, 10 edits of all layers' attention and one clean pass"
    return row(*in_turns(curve, plain), 1.25 * (10 + 1), notes)
