"""What a run is of: what its passes are told, and what its objective is asked of."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.preprocess import Preprocess
from xaikit.artifacts.storage import Storage
from xaikit.distributed import World
from xaikit.images.scenes import SceneSource
from xaikit.run import subject as module
from xaikit.run.options import Options
from xaikit.run.subject import Subject

PREPROCESS = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


def subject_of(classes: int = 0, **options: Any) -> Subject:
    """A run of a model with so many classes in its head."""
    tower: Any = Some(
        info=Some(classes=classes),
        weights_fingerprint="w",
        precision="float32",
        preprocess=PREPROCESS,
    )
    found = Subject(tower=tower, source=SceneSource(3, 0), options=Options(**options))
    found.__dict__["content"] = "i"
    return found


def test_a_streamed_run_reads_numbers_that_no_storage_narrows() -> None:
    narrow = Storage(dtype="float16")
    keys = {
        (stream, dtype): subject_of(stream=stream, storage=storage).request((1, 2)).key()
        for stream in (False, True)
        for dtype, storage in (("float32", Storage()), ("float16", narrow))
    }
    assert keys[True, "float16"] == keys[True, "float32"] == keys[False, "float32"]
    assert keys[False, "float16"] != keys[False, "float32"]


def test_passes_are_told_what_the_run_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "blank_info", lambda tower, source, pair: f"info of {pair}")
    subject = subject_of(batch_size=7, workers=3, strict=True)
    subject.world = World(0, 2)
    checkpoint: Any = "checkpoint"
    feed = subject.feed([(1, 2), (2, 3)], checkpoint)
    assert feed.infos == {(1, 2): "info of (1, 2)", (2, 3): "info of (2, 3)"}
    assert (feed.batch_size, feed.workers, feed.strict) == (7, 3, True)
    assert (feed.tower, feed.source) == (subject.tower, subject.source)
    assert feed.skipped is subject.skipped
    assert (feed.world, feed.checkpoint) == (subject.world, "checkpoint")


@pytest.mark.parametrize(
    ("options", "classes", "asked"),
    [
        ({}, 0, False),
        ({}, 5, False),
        ({"objective": "margin"}, 0, True),
        ({"objective": "margin"}, 5, True),
        # A prompt needs no classes; a class of the head does.
        ({"toward": "a dog"}, 0, False),
        ({"toward": "2"}, 5, True),
    ],
)
def test_the_objective_is_of_classes_where_the_model_or_the_margin_is(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], classes: int, asked: bool
) -> None:
    subject = subject_of(classes, **options)
    monkeypatch.setattr(Subject, "classifier", lambda self, ids: ("classes for", ids))
    monkeypatch.setattr(module, "chosen_objective", lambda *given: given)
    tower, live, classifier = subject.objective(["a", "b"])  # type: ignore[misc]
    assert tower is subject.tower
    assert live == subject.options.live()
    assert classifier == (("classes for", ["a", "b"]) if asked else None)


def test_every_candidate_s_content_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(max_images=2)
    del subject.__dict__["content"]
    monkeypatch.setattr(module, "candidate_count", lambda source, preprocess, most, workers: most)
    given: list[Any] = []
    subject.__dict__["contents"] = Some(
        fingerprint=lambda images, progress: given.append(list(images)) or "of both"
    )
    assert subject.content == "of both"
    assert given == [[0, 1]]
