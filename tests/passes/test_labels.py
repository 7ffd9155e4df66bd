"""Images that a run has seen have the labels that it gave them, whatever made its clusters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xaikit.artifacts.storage import Storage
from xaikit.errors import XaikitError
from xaikit.images.decoding import BadImage
from xaikit.images.scenes import SceneSource
from xaikit.passes.labels import label_images
from xaikit.stages.cluster import cluster
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

KINDS = [
    {"method": "kmeans", "prefix": "mixed"},
    {"method": "kmeans", "prefix": "own"},
    {"method": "guided", "prefix": "own"},
]


@pytest.fixture(scope="module")
def parts() -> Any:
    tower, source = load_tower("xaikit-demo", None), SceneSource(12, 0)
    traces = trace_layers(tower, source, [(0, 1), (2, 3)], storage=Storage(store_qk=True))
    return tower, source, traces


@pytest.mark.parametrize("options", KINDS, ids=lambda each: " ".join(each.values()))
def test_labels_of_a_run_s_own_images_are_the_run_s(parts: Any, options: dict[str, str]) -> None:
    tower, source, traces = parts
    features = [cluster(trace, num_clusters=6, sample_tokens=300, **options) for trace in traces]
    found = label_images(tower, source, features, batch_size=5)
    for own, each in zip(found, features, strict=True):
        assert own.dtype == torch.int64
        assert torch.equal(own, each.labels)


def test_an_image_that_cannot_be_labelled_is_an_error(parts: Any) -> None:
    tower, _, traces = parts
    features = cluster(traces[0], num_clusters=4, method="kmeans", sample_tokens=300)

    class Torn(SceneSource):
        def load(self, i: int) -> Any:
            if i == 3:
                raise BadImage(self.ids[i], "torn")
            return super().load(i)

    with pytest.raises(XaikitError, match="cannot be used: torn"):
        label_images(tower, Torn(6, 0), [features])
