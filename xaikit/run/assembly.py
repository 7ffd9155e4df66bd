"""Artefacts of a streaming run, from the sums and labels of all processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import torch

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace_writer import Storage
from xaikit.errors import XaikitError
from xaikit.images import Skipped, SkippedImages
from xaikit.passes.record import blank_info, trace_options
from xaikit.stages.fit import FitPart, assemble

if TYPE_CHECKING:
    from xaikit.artifacts.trace import TraceInfo
    from xaikit.distributed import World
    from xaikit.images import ImageSource
    from xaikit.passes.plan import Plan, StreamOptions
    from xaikit.passes.record import LayerPair
    from xaikit.passes.sample import Learnt
    from xaikit.passes.sums import StreamSums
    from xaikit.statistics.streaming import BlockSums
    from xaikit.towers import Tower


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """One pair of layers' results.

    Attributes
    ----------
    info : TraceInfo
        What a trace of the same images would say of itself.
    features : Features
    fit : Fit
        Without controls, which need the logits again.
    """

    info: TraceInfo
    features: Features
    fit: Fit


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What all processes read, on rank 0."""

    order: np.ndarray
    labels: dict[int, np.ndarray]
    skipped: list[Skipped]


def gather(sums: StreamSums, skipped: SkippedImages, world: World) -> Gathered:
    """Collect labels, put them into the images' order, and add up what was skipped."""
    mine = orjson.dumps([[item.id, item.reason] for item in skipped])
    parts = world.gather(
        {
            "order": torch.from_numpy(sums.order),
            "skipped": torch.frombuffer(bytearray(mine), dtype=torch.uint8),
        }
    )
    place = np.argsort(np.concatenate([part["order"].numpy() for part in parts])) if parts else None
    labels = {}
    for layer, _ in sums.pairs:
        found = world.gather({"labels": torch.from_numpy(sums.labels(layer))})
        if place is not None:
            labels[layer] = np.concatenate([part["labels"].numpy() for part in found])[place]
    if place is None:
        return Gathered(order=np.empty(0, np.int64), labels={}, skipped=[])
    said = [orjson.loads(part["skipped"].numpy().tobytes()) for part in parts]
    every = [Skipped(*item) for items in said for item in items]
    own = len(skipped)
    skipped.records.extend(every[own:])
    order = np.concatenate([part["order"].numpy() for part in parts])[place]
    return Gathered(order=order, labels=labels, skipped=every)


@dataclass(frozen=True)
class Assembly:
    """Artefacts from sums."""

    tower: Tower
    source: ImageSource
    plan: Plan
    learnt: Learnt
    options: StreamOptions
    sums: StreamSums
    gathered: Gathered

    def pair(self, pair: LayerPair, features_file: str) -> Streamed:
        info = self._info(pair)
        features = self._features(pair[0], info)
        return Streamed(
            info=info, features=features, fit=self._fit(pair[0], info, features, features_file)
        )

    def _info(self, pair: LayerPair) -> TraceInfo:
        used, skipped = self.gathered.order.tolist(), self.gathered.skipped
        if not used:
            first = f"; the first is {skipped[0].id}: {skipped[0].reason}" if skipped else ""
            raise XaikitError(f"none of the {self.plan.images} images can be used{first}")
        recorded = trace_options(
            self.source, self.options.max_images, self.tower.precision, Storage()
        )
        blank = blank_info(self.tower, self.source, pair, recorded)
        ids, groups = [self.source.ids[i] for i in used], self.source.groups
        origin = replace(blank.provenance.origin, images_fingerprint=fingerprint(ids))
        return replace(
            blank,
            provenance=replace(blank.provenance, origin=origin),
            images=ids,
            groups=[groups[i] for i in used] if groups else None,
            skipped=[[item.id, item.reason] for item in skipped[:1000]],
            skipped_count=len(skipped),
        )

    def _features(self, layer: int, info: TraceInfo) -> Features:
        o, learnt = self.options, self.learnt
        place = {int(image): at for at, image in enumerate(self.gathered.order)}
        split = {
            name: [place[i] for i in images if i in place]
            for name, images in self.plan.parts.items()
        }
        labels = torch.from_numpy(self.gathered.labels[layer].astype(np.int64))
        centroids = learnt[f"{layer}/centroids"]
        made = {
            "num_clusters": o.num_clusters,
            "sample_tokens": o.sample_tokens,
            "seed": o.seed,
            "holdout": o.holdout,
        }
        return Features(
            provenance=info.provenance.child({**made, "stream": True}, trace=info.identity),
            trace_file="",
            num_clusters=o.num_clusters,
            labels=labels,
            centroids=centroids,
            cluster_sizes=torch.bincount(labels.reshape(-1), minlength=o.num_clusters),
            cluster_activation_rates=centroids.mean(1),
            inertia=float(learnt[f"{layer}/inertia"]),
            distinct_points=int(learnt[f"{layer}/distinct"]),
            discovery=split["discovery"],
            heldout=split["heldout"],
        ).identify()

    def _fit(self, layer: int, info: TraceInfo, features: Features, features_file: str) -> Fit:
        o = self.options
        made: dict[str, Any] = {
            "destination": o.destination,
            "num_permutations": o.num_permutations,
            "null": o.null,
            "null_block": o.block,
            "seed": o.seed,
            "stream": True,
        }
        # A part all of whose images are unusable is as good as not there.
        parts = {
            name: _part(self.sums.sums[layer, name])
            for name in ("discovery", "heldout")
            if getattr(features, name)
        }
        if "discovery" not in parts:
            raise XaikitError("none of the discovery images can be used; pass more images")
        norms = self.sums.norms[layer].cpu() / len(info.images)
        return assemble(
            features,
            info,
            train=parts["discovery"],
            test=parts.get("heldout", parts["discovery"]),
            options=made,
            controls={},
            token_norms=norms.float(),
            trace_file="",
            features_file=features_file,
        )


def _part(found: BlockSums) -> FitPart:
    sums = found.sums()
    null = found.null(sums)
    return FitPart(sums=sums, null=null, pair_share=found.pair_share, draw_images=null.draw_images)
