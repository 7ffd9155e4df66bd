"""Clusters of images that a run has not seen, by what it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from xaikit.images import iter_batches
from xaikit.passes.learn import Clusters
from xaikit.statistics.guided import GuidedMap
from xaikit.statistics.prefix import prefix_clusters
from xaikit.towers import capture

if TYPE_CHECKING:
    from jaxtyping import Int64
    from torch import Tensor

    from xaikit.artifacts.tensors import Features
    from xaikit.images import ImageSource
    from xaikit.passes.learn import Label
    from xaikit.towers import FfnTap, Tower


def label_images(
    tower: Tower, source: ImageSource, features: Sequence[Features], *, batch_size: int = 32
) -> list[Int64[Tensor, "image token"]]:
    """Labels of every image of a source, a table for each layer's clusters.

    An image of the run gets the labels that the run gave it.
    """
    labels = [_labeller(tower, each) for each in features]
    parts: list[list[Tensor]] = [[] for _ in features]

    def tap(place: int) -> FfnTap:
        def keep(_inputs: Tensor, gate: Tensor) -> None:
            parts[place].append(labels[place](gate).cpu())

        return keep

    taps = {each.layer: tap(place) for place, each in enumerate(features)}
    for batch in iter_batches(source, tower.preprocess, batch_size=batch_size, strict=True):
        capture(tower, batch.pixels, ffn=taps)
    return [torch.cat(found) for found in parts]


def _labeller(tower: Tower, features: Features) -> Label:
    names = tower.info.prefix_kinds
    shared = prefix_clusters(features.num_clusters, names, features.prefix)
    guided = None
    if features.projection is not None:
        assert features.offset is not None
        assert features.leaf_means is not None
        guided = GuidedMap(
            projection=features.projection,
            offset=features.offset,
            leaf_means=features.leaf_means,
        )
    found = Clusters(
        centroids=features.centroids,
        counts=features.cluster_sizes,
        inertia=features.inertia,
        distinct_points=features.distinct_points,
        prefix=shared.labels if shared.tokens else torch.zeros(0, dtype=torch.int64),
        guided=guided,
    )
    return found.labeller(tower.device)
