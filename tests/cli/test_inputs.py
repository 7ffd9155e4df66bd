"""What commands open: every option that names a model or images reaches what opens it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
from conftest import ORIGIN

from xaikit.artifacts.inputs import (
    FitModelOptions,
    FormatOptions,
    ImageOptions,
    ModelOptions,
    PreprocessOptions,
)
from xaikit.artifacts.preprocess import Preprocess
from xaikit.artifacts.tensors import Features, Fit
from xaikit.cli import inputs as module
from xaikit.cli.console import Session
from xaikit.cli.inputs import Parts, of_the_circuit, open_source, open_tower, source_of
from xaikit.images import SkippedImages
from xaikit.images.pipeline import Skipped
from xaikit.interventions.live_options import LiveOptions
from xaikit.stages.trace import PairOptions, ReadOptions, TraceOptions


def test_every_option_of_a_model_reaches_what_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def load(model: str, pretrained: str, **more: Any) -> Any:
        given.update(more, model=model, pretrained=pretrained)
        return Some(loaded={})

    monkeypatch.setattr("xaikit.towers.load_tower", load)
    weights = {"model": "m", "pretrained": "w", "like_tag": "t", "quick_gelu": True}
    form = {"device": "cuda:1", "precision": "bfloat16", "seed": 7}
    pixels = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "resize": 99}
    pixels |= {"resize_mode": "squash"}
    open_tower(
        ModelOptions(**weights), FormatOptions(**form), PreprocessOptions(**pixels), with_text=True
    )
    assert given == {**weights, **form, **pixels, "with_text": True}


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_not_known_is_a_warning_and_what_is_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    tower = Some(loaded={"warnings": ["unknown"], "notes": ["known"]})
    monkeypatch.setattr("xaikit.towers.load_tower", lambda *_, **__: tower)
    session = Session(quiet=quiet)
    open_tower(ModelOptions(), FormatOptions(), session=session)
    source: Any = Some(left_out="a file beside")
    module.warn_left_out(session, source)
    skipped = SkippedImages([Skipped("x.png", "empty file", 0)])
    module.warn_skipped(session, skipped)
    lost = "warning: a file beside\nwarning: 1 image left out: x.png (empty file)\n"
    noted = "" if quiet else "known\n"
    assert capsys.readouterr().err == f"warning: unknown\n{noted}{lost}"


IMAGES = {
    "images": Path("photos"),
    "imagenet_root": Path("imagenet"),
    "split": "train",
    "webdataset": "x.tar",
    "dataset": "name",
}


def test_every_option_of_the_images_reaches_what_opens_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xaikit.images.open_images", lambda **given: given)
    chosen = ImageOptions(**IMAGES)
    asked: Any = open_source(chosen, ModelOptions(), seed=3, max_images=5)
    assert asked == {**IMAGES, "seed": 3, "max_images": 5, "demo": False}
    nothing: Any = open_source(ImageOptions(), ModelOptions(), seed=0)
    assert (nothing["demo"], nothing["max_images"]) == (True, None)
    other: Any = open_source(ImageOptions(), ModelOptions(model="m"), seed=0)
    assert not other["demo"]
    monkeypatch.setattr("xaikit.images.reopening.reopen", lambda described: described)
    info: Any = Some(source={"kind": "demo"})
    again: Any = source_of(info, chosen)
    assert again == IMAGES
    assert source_of(info, ImageOptions()) == info.source


def parts(monkeypatch: pytest.MonkeyPatch, features: Path | None = None) -> Parts:
    """Parts of a fit whose files are never read."""
    fit = Some(features_file="own", provenance=Some(origin=ORIGIN))
    known = {"size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}
    monkeypatch.setattr(Fit, "load", lambda path: fit)
    monkeypatch.setattr(Features, "load", lambda path: Some(path=path, info=Some(preprocess=known)))
    return Parts(None, features, Path("fit"))


def test_clusters_are_those_that_are_named_or_the_fit_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parts(monkeypatch).features.path == "own"
    assert parts(monkeypatch, Path("given")).features.path == Path("given")


def test_a_fit_is_asked_of_its_own_model_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def opened(model: ModelOptions, form: Any, preprocess: Any, *, with_text: bool) -> Any:
        asked.append((model, preprocess, with_text))
        return Some(weights_fingerprint=ORIGIN.weights_fingerprint, loaded={}, preprocess="its own")

    monkeypatch.setattr(module, "open_tower", opened)
    monkeypatch.setattr(module, "wants_text", lambda model, prompts: prompts is not None)
    found, form = parts(monkeypatch), FormatOptions()
    own = found.tower(FitModelOptions(), form)
    assert asked.pop() == (ModelOptions(model="made-up", pretrained="random"), None, False)
    as_traced = Preprocess(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert own.preprocess == as_traced
    # No option of pixels was given: the trace decides, not the model.
    assert found.tower(FitModelOptions(), form, PreprocessOptions()).preprocess == as_traced
    told = found.tower(FitModelOptions(), form, PreprocessOptions(resize=9), toward="a cat")
    assert told.preprocess == "its own"
    assert asked[-1][1:] == (PreprocessOptions(resize=9), True)
    found.tower(FitModelOptions(model="other", like_tag="t", quick_gelu=True), form)
    # Another model's weights are not those of the trace.
    assert asked.pop()[0] == ModelOptions(model="other", like_tag="t", quick_gelu=True)
    found.tower(FitModelOptions(pretrained="w"), form, labels=Path("prompts"))
    model, _, text = asked.pop()
    assert (model, text) == (ModelOptions(model="made-up", pretrained="w"), True)


@pytest.mark.parametrize(
    ("model", "prompts", "wanted"),
    [
        ("xaikit-demo", None, True),
        ("ViT-B-32", None, False),
        ("ViT-B-32", Path("prompts.txt"), True),
        ("ViT-B-32", "a cat", True),
        ("timm/vit_tiny_patch16_224", Path("prompts.txt"), False),
    ],
)
def test_prompts_want_the_text_tower_of_a_model_that_has_one(
    model: str, prompts: Any, wanted: bool
) -> None:
    assert module.wants_text(model, prompts) == wanted


def test_what_a_circuit_was_ranked_by_is_measured_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session, options = Session(), LiveOptions(seed=3)
    margin: Any = Some(objective={"kind": "margin"})
    found = of_the_circuit(session, options, {}, margin)
    assert (found.objective, found.seed) == ("margin", 3)
    assert "ranked by, the margin (--objective embedding" in capsys.readouterr().err
    aimed: Any = Some(objective={"kind": "toward", "toward": "a", "against": ""})
    found = of_the_circuit(session, options, {}, aimed)
    assert (found.toward, found.against) == ("a", None)
    for name in ("objective", "toward", "against"):
        assert of_the_circuit(session, options, {name: "x"}, aimed) is options
    plain: Any = Some(objective={})
    capsys.readouterr()
    assert of_the_circuit(session, options, {}, plain) is options
    assert of_the_circuit(session, options, {}, None) is options
    assert capsys.readouterr().err == ""


def test_a_trace_in_memory_is_of_the_layers_and_images_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xaikit.stages.trace.trace", lambda *parts, **given: (parts, given))
    tower, source, progress = object(), object(), object()
    pair, reading = PairOptions(target_layer=3, next_attn_layer=5), ReadOptions(max_images=7)
    found: Any = module.recorded(tower, source, pair, reading, progress)  # type: ignore[arg-type]
    options = TraceOptions(max_images=7)
    layers = {"target_layer": 3, "next_attn_layer": 5}
    assert found == ((tower, source), {**layers, "options": options, "progress": progress})
