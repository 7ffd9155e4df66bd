"""What commands that read images are given, and what they say of images that were left out."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
from command_line import run
from rich.text import Text

from xaikit.artifacts.inputs import ImageOptions, ModelOptions
from xaikit.artifacts.trace import Trace
from xaikit.cli import baselines, run_all, stability, trace
from xaikit.errors import XaikitError
from xaikit.images.pipeline import Skipped

LEFT_OUT = "warning: beside 2 images, 1 other file\n"
LOST = "warning: 1 image left out: x.png (empty file)\n"


class Opened:
    """The models and images that a command opens, in place of opening them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self.towers: list[tuple[ModelOptions, bool]] = []
        monkeypatch.setattr(module, "open_source", lambda *_, **__: Some(left_out=LEFT_OUT[9:-1]))
        monkeypatch.setattr(module, "open_tower", self.tower)
        for name in ("joined", "holding"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: nullcontext("world"))

    def tower(self, model: ModelOptions, *_: Any, session: Any = None, **__: Any) -> Any:
        self.towers.append((model, session is not None))
        return Some(info=Some(model=model.model, layers=6))


class Found(list[str]):
    """A trace of two images."""

    layer, next_layer = 3, 5
    info = Some(skipped_count=4, tokens=7, heads=2, width=8, ffn_width=1234)


def test_a_trace_says_what_it_is_of_and_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, asked = Opened(monkeypatch, trace), {}

    def traced(tower: Any, source: Any, *, skipped: Any, **given: Any) -> Found:
        skipped.records.append(Skipped("x.png", "empty file"))
        asked.update(given)
        return Found("ab")

    monkeypatch.setattr(trace, "shared_trace", traced)
    assert run("trace", "--out", "t", "--force", "--next-attn-layer", "5", "-q") == 0
    said = capsys.readouterr()
    assert said.out == (
        "2 images × 7 tokens: gates of layer 3 (1,234 wide), logits of layer 5 (2 heads) → t\n"
    )
    assert said.err == LEFT_OUT + LOST
    assert (asked["force"], asked["next_attn_layer"], asked["out"]) == (True, 5, Path("t"))
    assert opened.towers == [(ModelOptions(), True)]
    assert run("trace", "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out) == {
        "trace": "trace.safetensors",
        "images": 2,
        "skipped": 4,
        "layer": 3,
        "next_layer": 5,
        "tokens": 7,
        "heads": 2,
        "ffn_width": 1234,
    }
    assert not asked["force"]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `run-all` is asked for, in place of a run that leaves out an image."""
    asked: dict[str, Any] = {}

    class Runs(list[str]):
        whole = None

    def ran(tower: Any, source: Any, *, skipped: Any, **given: Any) -> Runs:
        skipped.records.append(Skipped("x.png", "empty file"))
        asked.update(given)
        return Runs(["a layer"])

    asked["opened"] = Opened(monkeypatch, run_all)
    monkeypatch.setattr("xaikit.run.run_all.run_all", ran)
    monkeypatch.setattr("xaikit.cli.run_summary.run_lines", lambda *_: ["recipe", "last"])
    monkeypatch.setattr("xaikit.cli.run_summary.run_fields", lambda *_: {"recipe": "r"})
    return asked


def test_a_run_says_what_was_left_out_and_where_its_page_is(
    whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named: list[Any] = []

    def written(folder: Path, *, naming: Any, progress: Any) -> Path:
        named.append(naming.tower)
        return folder / "report.html"

    monkeypatch.setattr("xaikit.report.page.write_report", written)
    assert run("run-all", "--out-dir", "o", "--force", "--group", "folder", "-q") == 0
    said = capsys.readouterr()
    assert said.err == LEFT_OUT + LOST
    assert said.out == (
        "recipe\nlast\na circuit for each group of images: o/groups.json\n"
        "open o/report.html in a browser\n"
    )
    assert whole["force"]
    assert whole["opened"].towers == [(ModelOptions(), True)]
    # The page takes the model that is there.
    assert named[0].info.layers == 6
    assert run("run-all", "--group", "folder", "--json", "-q", "--target-layer", "all") == 0
    assert json.loads(capsys.readouterr().out) == {
        "recipe": "r",
        "report": "xaikit-out/report.html",
        "groups": "xaikit-out/groups.json",
    }
    # Every layer that has one after it.
    assert (whole["force"], whole["layers"]) == (False, [0, 1, 2, 3, 4])


def test_a_run_is_whole_without_a_page(
    whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> Path:
        raise XaikitError("no room")

    monkeypatch.setattr("xaikit.report.page.write_report", refused)
    assert run("run-all", "-q") == 0
    said = capsys.readouterr()
    assert said.out == "recipe\nlast\n"
    assert said.err == f"{LEFT_OUT}{LOST}warning: no report was written: no room\n"
    assert run("run-all", "-q", "--json") == 0
    assert json.loads(capsys.readouterr().out)["report"] is None


@pytest.mark.usefixtures("whole")
def test_how_a_number_was_chosen_follows_the_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_all, "_page", lambda *_: None)
    monkeypatch.setattr("xaikit.artifacts.studies.ClusterSweep.load", lambda path: str(path))
    monkeypatch.setattr(
        "xaikit.report.studies.sweep_sheet", lambda found: Some(rich=lambda: Text(found))
    )
    assert run("run-all", "--num-clusters", "auto", "--out-dir", "o", "-q") == 0
    assert capsys.readouterr().out == "recipe\no/num_clusters.json\nlast\n"


@pytest.mark.usefixtures("whole")
def test_a_plan_is_of_the_layers_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def planned(*_: Any, layers: Any, next_attn_layer: Any, options: Any) -> Any:
        asked.append((layers, next_attn_layer, options.num_clusters))
        return Some(to_dict=lambda: {"memory": 3})

    monkeypatch.setattr("xaikit.run.run_all.planned", planned)
    monkeypatch.setattr("xaikit.report.forecast.forecast_lines", lambda found: ["a plan"])
    given = ["--target-layer", "2", "--next-attn-layer", "4", "--num-clusters", "9"]
    assert run("run-all", "--plan", *given, "-q") == 0
    assert capsys.readouterr().out == "a plan\n"
    assert asked == [([2], 4, 9)]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `baselines` and `stability` make of their words, in place of any work."""
    asked: dict[str, Any] = {"untrained": None}
    stored = Some(info="info", provenance=Some(origin=Some(model="own")))
    monkeypatch.setattr(Trace, "load", lambda path: stored)

    def control(*parts: Any, **_: Any) -> str:
        asked["untrained"] = parts
        return "a control"

    def scored(*parts: Any, **given: Any) -> Any:
        asked.update(given, parts=parts)
        return Some(to_dict=dict)

    for module in (baselines, stability):
        asked[module.__name__] = Opened(monkeypatch, module)
        monkeypatch.setattr(module, "recorded", lambda *_: "in memory")
        monkeypatch.setattr(module, "stage", scored)
        monkeypatch.setattr(module, "show_study", lambda *_: None)
    monkeypatch.setattr(baselines, "source_of", lambda info, images: (info, images))
    monkeypatch.setattr(baselines, "cluster", lambda traced, options, progress: options)
    monkeypatch.setattr(baselines, "random_weights", control)
    for name in ("baselines", "stability"):
        monkeypatch.setattr(f"xaikit.report.studies.{name}_sheet", lambda found: None)
    asked["stored"] = stored
    return asked


def test_the_control_of_a_trace_is_of_its_own_model_and_images(
    study: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("baselines", "--trace", "t", "--draws", "3") == 0
    traced, clusters, options = study["parts"]
    assert (traced, clusters.holdout, options.draws) == (study["stored"], 0.5, 3)
    assert study["random"] == "a control"
    tower, source, *rest = study["untrained"]
    assert (tower.info.model, source) == ("own", ("info", ImageOptions()))
    assert rest == [study["stored"], clusters]
    (untrained,) = study["xaikit.cli.baselines"].towers
    assert untrained[0] == ModelOptions(model="own", pretrained="random")
    assert run("baselines", "--trace", "t", "--images", "photos", "--model", "own") == 0
    assert study["untrained"][1] == ("info", ImageOptions(images=Path("photos")))
    assert capsys.readouterr().err == ""
    assert run("baselines", "--trace", "t", "--model", "other") == 2
    said = "--control random-weights: the trace is of own and not of other; leave out --model"
    assert said in capsys.readouterr().err


def test_without_a_control_a_trace_is_enough(study: dict[str, Any]) -> None:
    assert run("baselines", "--trace", "t", "--control", "none") == 0
    assert (study["random"], study["xaikit.cli.baselines"].towers) == (None, [])


@pytest.mark.parametrize("command", ["baselines", "stability"])
def test_a_study_says_what_is_not_known_of_the_model_and_what_is_not_read(
    study: dict[str, Any], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(command, "--model", "m", "--pretrained", "w", "-q") == 0
    assert capsys.readouterr().err == LEFT_OUT
    first, *others = study[f"xaikit.cli.{command}"].towers
    assert first == (ModelOptions(model="m", pretrained="w"), True)
    untrained = (ModelOptions(model="m", pretrained="random"), False)
    assert others == ([untrained] if command == "baselines" else [])
    assert study["parts"][0] == "in memory"
