"""A removal curve of one ranking against plain forward passes of the same images."""

from __future__ import annotations

from typing import Any

import torch
from timing import images, in_turns, row

from xaikit.artifacts.tensors import Features, Fit
from xaikit.images import ImageSource, iter_batches
from xaikit.interventions import SHARES, Live, LiveOptions, order_patch, random_order
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace
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
