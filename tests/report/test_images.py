"""The images that the page shows whole, with their own clusters and logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from report.made_parts import made_parts, made_run

from xaikit.report.page import images as module
from xaikit.report.page.images import add_images, image_records, shown_images


class Pictures:
    """Pictures some of which are gone."""

    def __init__(self, *gone: int) -> None:
        self.gone = gone

    def available(self, wanted: list[int], most: int) -> list[int]:
        return [image for image in wanted if image not in self.gone][:most]

    def framed(self, _image: int) -> None:
        return None

    def name(self, image: int) -> str:
        return f"{image}.png"


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers as they are packed."""
    monkeypatch.setattr(module, "packed", lambda values: values.tolist())
    monkeypatch.setattr(module, "packed_labels", lambda values: values.tolist())


def test_images_are_those_that_tests_run_on_and_say_whether_clusters_were_learnt_on_them() -> None:
    run, pictures = made_run(made_parts()), Pictures(3)
    assert shown_images(run, pictures) == [1, 8, 9]  # type: ignore[arg-type]
    found = image_records(run, pictures)  # type: ignore[arg-type]
    assert [(each["index"], each["name"], each["heldout"]) for each in found] == [
        (1, "1.png", True),
        (8, "8.png", True),
        (9, "9.png", True),
    ]
    run.layers[0].features.heldout, run.layers[0].features.discovery = [], list(range(12))
    found = image_records(run, Pictures())  # type: ignore[arg-type]
    assert [each["index"] for each in found] == [0, 1, 3, 4, 6, 7, 9, 11]
    assert not any(each["heldout"] for each in found)
    # Names and clusters are shown where no picture can be.
    assert len(shown_images(run, Pictures(*range(12)))) == 8  # type: ignore[arg-type]


@pytest.mark.usefixtures("raw")
def test_each_layer_has_its_own_labels_and_as_many_logits_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = made_parts(), made_parts()
    other.features.labels = (other.features.labels + 1) % 4
    other.trace = None
    layers: list[dict[str, Any]] = [{}, {}]
    records = [{"index": image} for image in (9, 1, 8)]
    # Two heads of 5 × 5 in each of two layers.
    monkeypatch.setattr(module, "LOGIT_BYTES", 250)
    add_images(made_run(one, other), records, layers)
    for parts, layer in zip((one, other), layers, strict=True):
        assert layer["labels"] == parts.features.labels[[9, 1, 8]].tolist()
        assert np.allclose(layer["positionMean"], parts.fit.position_mean.numpy())
    assert one.trace is not None
    expected = [one.trace.logits(image, image + 1)[0].tolist() for image in (9, 1)]
    assert layers[0]["logits"] == expected
    assert layers[1]["logits"] is None
    monkeypatch.setattr(module, "LOGIT_BYTES", 1)
    monkeypatch.setattr(module, "MEAN_BYTES", 99)
    add_images(made_run(one, other), records, layers)
    assert layers[0]["logits"] == expected[:1]
    assert layers[0]["positionMean"] is None
