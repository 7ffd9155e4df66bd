"""A planted tower with edges in several layers, traced, clustered and fitted by the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from planted_run import Pictures

from xaikit.artifacts.preprocess import Preprocess
from xaikit.artifacts.tensors import Features, Fit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace_layers
from xaikit.testing import Planted, PlantedTruth, planted_tower
from xaikit.testing.planted_images import MEAN, STD
from xaikit.towers import Tower, wrap_tower


@dataclass(frozen=True)
class PlantedLayers:
    planted: Planted
    tower: Tower
    source: Pictures
    parts: list[tuple[Features, Fit]]
    ids: list[str]
    truths: list[PlantedTruth | None]


@lru_cache(maxsize=2)
def planted_layers(images: int = 48, **options: Any) -> PlantedLayers:
    """All layers' clusters and fits to clusters, half of the images held out."""
    planted = planted_tower(layers=6, **options)
    drawn = planted.images(images)
    side = planted.spec.image_size
    preprocess = Preprocess(size=(side, side), mean=MEAN, std=STD)
    tower = wrap_tower(planted.module, model="planted", preprocess=preprocess)
    source = Pictures(drawn)
    pairs = [(layer, layer + 1) for layer in range(planted.spec.layers - 1)]
    stages = {pair: stage for stage, pair in enumerate(planted.layer_pairs)}
    clusters = planted.spec.groups + 1
    parts, truths = [], []
    for pair, traced in zip(pairs, trace_layers(tower, source, pairs, workers=1), strict=True):
        features = cluster(traced, num_clusters=clusters, sample_tokens=0, holdout=0.5)
        found = fit(traced, features, destination="cluster", num_permutations=2, controls=False)
        parts.append((features, found))
        stage = stages.get(pair)
        truths.append(
            None if stage is None else planted.truth(features.labels, drawn.groups, clusters, stage)
        )
    return PlantedLayers(planted, tower, source, parts, list(drawn.ids), truths)
