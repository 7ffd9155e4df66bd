"""`explain`: what a run decides, what is given by hand, and what is written beside the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
from command_line import run

from xaikit.artifacts.inputs import FitModelOptions
from xaikit.cli import explain as module
from xaikit.errors import XaikitError


class Asked:
    """What `explain` makes of its words, in place of a model and a page."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, objective: dict[str, str]) -> None:
        self.parts: list[Any] = []
        self.stage: dict[str, Any] = {}
        self.tower: Any = None
        self.naming: Any = None
        self.command = ""
        asked, page = self, "xaikit.report.page"

        class Parts:
            """The artefacts of a layer."""

            def __init__(self, trace: None, features: Path, fit: Path, circuit: Path) -> None:
                asked.parts.append((features, fit, circuit))
                self.features, self.fit = features, fit
                self.circuit = Some(rank="energy", objective=objective) if circuit else None

            def tower(self, model: FitModelOptions, *_: Any, **more: Any) -> Any:
                asked.tower = (model, more)
                return Some(preprocess=None)

            def source(self, images: Any) -> str:
                return "source"

            def ids(self, source: str) -> list[str]:
                return ["a"]

        def stage(tower: Any, source: Any, parts: Any, picture: Any, **given: Any) -> Any:
            asked.stage = {**given, "parts": parts}
            return Some(save=lambda path: path.write_text("record"))

        def named(made: Any, folder: Path, naming: Any, progress: Any) -> str:
            asked.naming = naming
            return "own circuit"

        def written(found: Any, out: Path, *, command: str) -> Path:
            asked.command = command
            out.write_text("page")
            return out

        opened = Some(own=None, fields=dict)
        for name, does in {
            "xaikit.cli.explain.Parts": Parts,
            "xaikit.stages.explain.explain": stage,
            "xaikit.images.views.find_image": lambda source, image: "picture",
            "xaikit.images.framed": lambda *_: [[0]],
            "xaikit.interventions.classifiers.classifier_for": lambda *given: given[2],
            "xaikit.report.explanation.draw_explanation": lambda made, seen, out: out.touch(),
            f"{page}.own_circuit.OwnCircuit.of": named,
            f"{page}.explained.Explained.of": lambda *_: opened,
            f"{page}.explained.write_explained": written,
            f"{page}.explained.sentences": lambda found: ["a sentence"],
        }.items():
            monkeypatch.setattr(name, does)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a run of two layers, each with a circuit of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "xaikit.artifacts.run_record.run_folders", lambda root: [root / "layer_1", root / "layer_2"]
    )
    for place in ("run", "run/layer_1", "run/layer_2"):
        Path(place).mkdir()
        Path(place, "circuit.json").touch()
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_run_decides_what_is_not_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, {"kind": "toward", "toward": "a cat", "against": "a dog"})
    assert run("explain", "--run", "run", "-1.png", "-q") == 2  # an option that there is none of
    assert run("explain", "--run", "run", "--batch-size", "3", "--", "-1.png") == 0
    # Of several layers the circuit of all of them is the run's, not the first one's.
    layers = [Path("run/layer_1"), Path("run/layer_2")]
    common = Path("run/circuit.json")
    assert asked.parts == [
        (each / "features.safetensors", each / "fit.safetensors", common) for each in layers
    ]
    assert [each for each, _ in asked.stage["parts"]] == [each for each, _, _ in asked.parts]
    options = asked.stage["options"]
    assert (options.toward, options.against, options.batch_size) == ("a cat", "a dog", 3)
    assert (asked.stage["rank"], asked.stage["name"]) == ("energy", "-1.png")
    assert asked.tower == (FitModelOptions(), {"labels": None, "toward": "a cat"})
    assert asked.naming.wanted
    # The image stands last, where a shell's dashes make no option of it nor of what follows.
    assert asked.command == "xaikit explain --run run --batch-size 3 -- -1.png"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a sentence"
    assert said[1] == "→ explain.html (4 B) · explain.json · explain.png"
    assert Path("explain.json").read_text() == "record"


@pytest.mark.usefixtures("folder")
def test_what_is_given_by_hand_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, {})
    given = ["--pretrained", "w", "--quick-gelu", "--labels", "l", "--vocabulary", "v"]
    more = ["--no-names", "--toward", "a hat", "--out", "x.html", "--json"]
    assert run("explain", "a.png", "--run", "run", *given, *more) == 0
    own = FitModelOptions(pretrained="w", quick_gelu=True)
    assert asked.tower == (own, {"labels": Path("l"), "toward": "a hat"})
    assert asked.stage["classifier"] == Path("l")
    assert (asked.naming.wanted, asked.naming.vocabulary) == (False, Path("v"))
    said = json.loads(capsys.readouterr().out)
    assert said == {"explain": "x.html", "record": "x.json", "picture": "x.png", "bytes": 4}


def test_without_a_run_there_is_the_demo_s_scene_of_the_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(images: Any, model: Any, *, seed: int) -> None:
        raise XaikitError(f"seed {seed}")

    monkeypatch.setattr(module, "open_source", opened)
    assert run("explain", "demo/5/000001", "--seed", "5") == 1
    assert capsys.readouterr().err == "error: seed 5\n"
    for flag in ("--labels", "--vocabulary"):
        assert run("explain", "a.png", flag, "words.txt") == 2
        assert "are for --run, the folder of a run" in capsys.readouterr().err
