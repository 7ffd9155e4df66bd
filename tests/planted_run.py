"""A planted tower with everything an intervention needs, without files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image

from xaikit.artifacts.preprocess import Preprocess
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace, TraceInfo
from xaikit.images.content import content_fingerprint
from xaikit.images.digests import digest_of
from xaikit.interventions import Classifier, Live, LiveOptions, Objective
from xaikit.stages.fit import fit
from xaikit.testing import Planted, PlantedImages, planted_tower
from xaikit.testing.planted_images import MEAN, STD
from xaikit.towers import Tower, wrap_tower


class Pictures:
    """Planted images as an `ImageSource`."""

    groups = None

    def __init__(self, images: PlantedImages) -> None:
        self.images = images
        self.ids = images.ids

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        return Image.fromarray(self.images.pixels[i].numpy())

    def digest(self, i: int) -> str:
        return digest_of(self.images.pixels[i].numpy().tobytes())

    def describe(self) -> dict[str, Any]:
        return {"kind": "planted"}


@dataclass(frozen=True)
class PlantedRun:
    planted: Planted
    tower: Tower
    source: Pictures
    trace: Trace
    features: Features
    fit: Fit

    def live(
        self,
        images: list[int] | None = None,
        *,
        objective: Objective | None = None,
        classifier: Classifier | None = None,
        pairs: dict[str, str] | None = None,
        **options: Any,
    ) -> Live:
        return Live(
            self.tower,
            self.source,
            [(self.features, self.fit)],
            ids=self.trace.images,
            images=self.features.heldout if images is None else images,
            options=LiveOptions(**options),
            objective=objective,
            classifier=classifier,
            pairs=pairs,
        )


@lru_cache(maxsize=4)
def planted_run(destination: str = "token", images: int = 48, **options: Any) -> PlantedRun:
    """Trace, true groups as clusters, and a fit, half of the images held out."""
    planted = planted_tower(**options)
    drawn = planted.images(images)
    side = planted.spec.image_size
    tower = wrap_tower(
        planted.module,
        model="planted",
        preprocess=Preprocess(size=(side, side), mean=MEAN, std=STD),
    )
    origin = Origin(
        model="planted",
        pretrained="planted",
        weights_fingerprint=tower.weights_fingerprint,
        images_fingerprint=content_fingerprint(Pictures(drawn)),
    )
    spec = planted.spec
    info = TraceInfo(
        provenance=Provenance(origin=origin, layer=planted.layer, next_layer=planted.next_layer),
        images=drawn.ids,
        groups=None,
        tokens=spec.tokens,
        heads=spec.heads,
        prefix_kinds=["class token"],
        width=4,
        ffn_width=8,
        grid=[spec.grid, spec.grid],
    )
    tensors = {
        "h_l": torch.zeros(images, spec.tokens, 4),
        "ffn_gate_l": torch.zeros(images, spec.tokens, 8, dtype=torch.uint8),
        "attn_logits_l1": planted.logits(drawn).float(),
        "residual_norms_l1": torch.ones(images, spec.tokens),
    }
    trace = Trace.from_tensors(info, tensors)
    clusters = spec.groups + 1
    features = Features(
        provenance=trace.provenance.child({}, trace=trace.identity),
        recorded=trace.info.recorded(),
        num_clusters=clusters,
        labels=drawn.groups,
        centroids=torch.zeros(clusters, 8),
        cluster_sizes=torch.bincount(drawn.groups.reshape(-1), minlength=clusters),
        cluster_activation_rates=torch.zeros(clusters),
        discovery=list(range(0, images, 2)),
        heldout=list(range(1, images, 2)),
    ).identify()
    fitted = fit(trace, features, destination=destination, num_permutations=20)
    return PlantedRun(planted, tower, Pictures(drawn), trace, features, fitted)
