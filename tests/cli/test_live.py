"""`intervene` as a person types it, on the demo with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
from command_line import run, run_stages

from xaikit.artifacts.results import Circuit, Intervention
from xaikit.errors import UsageError

STAGES = {
    "trace": ["--pretrained", "random", "--max-images", "16", "--target-layer", "4"],
    "cluster": ["--num-clusters", "4", "--holdout", "0.5"],
    "fit": ["--num-permutations", "5", "--destination", "cluster"],
    "circuit": ["--top-k", "5"],
}
FEW = [
    *("--rank", "reach,energy", "--shares", "0.01,0.1", "--draws", "2", "--edges", "2"),
    *("--edge-draws", "3", "--ig-steps", "1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands before `intervene` ran."""
    return run_stages(tmp_path_factory.mktemp("live"), STAGES)


@pytest.mark.parametrize("command", [["circuit", "--rank", "reach"], ["intervene"]], ids=" ".join)
def test_what_is_asked_of_the_model_is_told_to_what_opens_it(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    asked: dict[str, Any] = {}

    class Parts:
        """The artefacts, whose model is never opened."""

        circuit = target = None

        def __init__(self, *files: Path | None) -> None:
            asked["files"] = files
            self.fit = None

        def source(self, images: Any) -> None:
            """No images."""

        def tower(self, *_: Any, **more: Any) -> None:
            asked.update(more)
            raise UsageError("asked enough")

    monkeypatch.setattr(f"xaikit.cli.{command[0]}.Parts", Parts)
    files = ["--features", "f", "--trace", "t"]
    assert run(*command, *files, "--toward", "a cat", "--labels", "l") == 2
    assert asked["files"][:3] == (Path("t"), Path("f"), Path("fit.safetensors"))
    assert (asked["toward"], asked["labels"]) == ("a cat", Path("l"))


def test_a_circuit_is_scored_with_the_options_that_were_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}
    parts = {"features": "f", "fit": "t", "source": lambda images: "s", "ids": lambda source: []}
    parts["tower"] = lambda *_, **__: "model"

    def scored(*_: Any, **given: Any) -> None:
        asked.update(given)
        raise UsageError("asked enough")

    monkeypatch.setattr("xaikit.cli.circuit.Parts", lambda *_: Some(**parts))
    monkeypatch.setattr("xaikit.cli.circuit.aimed_scores", scored)
    monkeypatch.setattr("xaikit.interventions.classifiers.classifier_for", lambda *given: given[2])
    few = ["circuit", "--rank", "reach", "--score-images", "7", "--labels", "l"]
    assert run(*few) == 2
    # What is no direction needs no classes.
    assert (asked["options"].score_images, asked["classifier"]) == (7, None)
    assert run(*few, "--objective", "margin") == 2
    assert (asked["options"].objective, asked["classifier"]) == ("margin", Path("l"))


def test_edges_to_measure_and_a_picture_are_given_by_their_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    parts = {"circuit": Some(objective={}), "target": "its edges", "features": "f", "fit": "t"}
    parts |= {"source": lambda images: "s", "tower": lambda *_, **__: "model"}
    parts |= {"ids": lambda source: [], "trace": None}

    def opened(*files: Path | None) -> Any:
        asked["files"] = files
        return Some(**parts)

    def stage(*_: Any, **given: Any) -> Any:
        asked.update(given)
        return found

    found = Some(save=lambda path: path.touch(), heldout=True)
    monkeypatch.setattr("xaikit.cli.intervene.Parts", opened)
    monkeypatch.setattr("xaikit.cli.intervene.stage", stage)
    for name, does in {
        "interventions.classifiers.classifier_for": lambda *given: given[2],
        "report.curves.plot_curves": lambda found, path: path,
        "report.live.intervene_fields": lambda found: {"images": 3},
        "report.live.intervene_lines": lambda found: ["a line"],
        "report.live.edge_table": lambda found: [],
        "report.figures.figures_sheet": lambda found: Some(markdown=lambda: "| a page |\n"),
    }.items():
        monkeypatch.setattr(f"xaikit.{name}", does)
    monkeypatch.chdir(tmp_path)
    given = ["--circuit", "c", "--target-causal", "e", "--plot", "p.png", "--labels", "l"]
    assert run("intervene", *given, "-q") == 0
    assert capsys.readouterr().out == "a line\n→ intervene.json · p.png\n"
    assert asked["files"][3:] == (Path("c"), Path("e"))
    assert (asked["target"], asked["classifier"]) == ("its edges", Path("l"))
    # How to make the artefact again; what is drawn of it is no part of it.
    again = ["xaikit", "intervene", *given[:4], *given[6:]]
    assert sorted(found.command.split()) == sorted(again)
    assert run("intervene", *given, "--json", "--markdown", "-q") == 0
    assert json.loads(capsys.readouterr().out) == {
        "intervene": "intervene.json",
        "plot": "p.png",
        "images": 3,
    }
    assert run("intervene", "--markdown", "-q") == 0
    assert capsys.readouterr().out.strip() == "| a page |"


def test_model_and_images_are_those_of_the_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run("intervene", "--circuit", "circuit.json", "--plot", "curve.png", *FEW) == 0
    found = Intervention.load("intervene.json")
    assert found.num_images == 8
    assert found.heldout
    assert found.metrics == ["cosine", "kl", "margin", "accuracy"]
    assert {curve["mode"] for curve in found.curves} == {"remove", "keep"}
    # The last cluster is the class token, and is called so.
    names = ["cluster 0", "cluster 1", "cluster 2", "class token"]
    assert [edge.dst_name for edge in found.effects] == [
        names[edge.dst_cluster] for edge in found.effects if edge.dst_cluster is not None
    ]
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "removing the 10% of logit entries" in printed
    assert "the circuit's 5 edges cover" in printed


def test_json_holds_the_verdict_and_the_areas(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    Path("prompts.txt").write_text("a circle\na square\n\n")
    options = ["--labels", "prompts.txt", "--ablation", "knockout", "--mode", "remove"]
    assert run("intervene", *FEW, *options, "--json", "--quiet") == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["rankings"]) == {"reach", "energy"}
    assert set(printed["random"]) == {"area_log", "area_linear"}
    assert "does" in printed["verdict"]
    assert Intervention.load("intervene.json").classifier == "zero-shot, 2 prompts"


@pytest.mark.parametrize("rank", ["reach", "output"])
def test_a_circuit_is_chosen_by_running_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    monkeypatch.chdir(folder)
    few = ["--top-k", "6", "--score-images", "4", "--out", f"{rank}.json", "-q"]
    assert run("circuit", "--rank", rank, *few) == 0
    found = Circuit.load(f"{rank}.json")
    assert found.rank == rank
    scores = [edge.score for edge in found.paths]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0
    assert run("intervene", "--circuit", f"{rank}.json", *FEW, "--out", "chosen.json") == 0
    assert Intervention.load("chosen.json").completeness["edges"] == 6


def test_edges_of_a_circuit_are_told_apart_by_a_direction(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    few = ["--top-k", "6", "--score-images", "4", "--ig-steps", "1", "--toward", "top red circle"]
    for rank in ("weight", "attribution"):
        assert run("circuit", "--rank", rank, *few, "--out", "aimed.json", "-q") == 0
        assert f"6 of 6 edges by {rank}, for and against “top red circle”" in (
            capsys.readouterr().out
        )
        found = Circuit.load("aimed.json")
        assert found.objective["toward"] == "top red circle"
        assert {edge.side for edge in found.paths} == {"for", "against"}
        assert all((edge.effect > 0) == (edge.side == "for") for edge in found.paths)
    # By size: both ends of what has a sign.
    assert [edge.score for edge in found.paths] == [abs(edge.effect) for edge in found.paths]


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_run_all_ranks_by_the_live_model_and_takes_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a circle\na square\n")
    options = ["--rank", "reach", "--labels", "prompts.txt", "--num-clusters", "4"]
    sizes = ["--max-images", "16", "--num-permutations", "9", "--target-layer", "3", "-q"]
    assert run("run-all", "--out-dir", "out", *options, *sizes, *stream) == 0
    assert Circuit.load("out/circuit.json").rank == "reach"
    found = Intervention.load("out/intervene.json")
    assert found.classifier == "zero-shot, 2 prompts"
    assert found.completeness["removed"] > found.completeness["random_mean"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "size"], "--rank size: expected one of"),
        (["--shares", "a,b"], "--shares a,b: expected numbers"),
        (["--shares", "2"], "--shares 2.0: expected shares in (0, 1]"),
        (["--labels", "none.txt"], "--labels none.txt: No such file"),
        (["--pretrained", "xaikit-demo.safetensors"], "xaikit-demo.safetensors"),
        (["--images", "."], "images of the trace are not among the given images"),
        (["--draws", "-3"], "--draws -3"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    assert run("intervene", *FEW, *options) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_other_weights_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run("intervene", *FEW, "--seed", "3") == 2
    assert "the fit is of xaikit-demo with weights" in capsys.readouterr().err


def test_without_a_holdout_it_warns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run("cluster", "--num-clusters", "4", "--out", "all.safetensors", "--quiet") == 0
    assert run("fit", "--features", "all.safetensors", "--out", "fit_all.safetensors", "-q") == 0
    parts = ["--features", "all.safetensors", "--fit", "fit_all.safetensors"]
    assert run("intervene", *parts, *FEW, "--max-images", "4", "--out", "all.json") == 0
    assert "warning: no image was held out" in capsys.readouterr().err
    assert not Intervention.load("all.json").heldout


def test_a_run_of_several_layers_is_edited_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--num-clusters", "4", "--num-permutations", "3", "--destination", "cluster"]
    some = ["--max-images", "8", "--target-layer", "1,3", "--no-intervene", "--top-k", "9"]
    assert run("run-all", *few, *some, "--out-dir", "out", "-q") == 0
    capsys.readouterr()
    more = ["--toward", "top red circle", "--against", "top blue circle", "--out", "live.json"]
    assert run("intervene", "--run", "out", *FEW, *more, "--markdown", "-q") == 0
    printed = capsys.readouterr().out
    assert "falls of “top red circle” against “top blue circle” (removing all entries" in printed
    assert "CPR" not in printed
    assert "2 layers together" in printed
    assert "| random |" in printed
    found = Intervention.load("live.json")
    assert found.layers == [[1, 2], [3, 4]]
    assert found.objective["against"] == "top blue circle"
    assert found.completeness["edges"] == 9
    assert run("intervene", "--run", "out", "--circuit", "c.json") == 2
    assert "--run takes a run's own files" in capsys.readouterr().err


def test_later_commands_take_the_direction_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xaikit.stages.circuit.draw", lambda *_: [])
    monkeypatch.setattr("xaikit.cli.run_all._page", lambda *_: None)
    few = ["--num-clusters", "4", "--num-permutations", "3", "--max-images", "8", "--top-k", "9"]
    aim = ["--toward", "top red circle", "--against", "top blue circle"]
    some = [*few, *aim, "--target-layer", "1,3", "--no-intervene", "--out-dir", "out"]
    assert run("run-all", "--stream", *some) == 0
    printed = capsys.readouterr().out
    words = "“top red circle” against “top blue circle”"
    assert "2 layers together" in printed
    assert printed.count(f"edges by reach, for and against {words}") == 3
    made = ["intervene", "--run", "out", "--rank", "reach", "--shares", "0.1", "--mode", "remove"]
    made += ["--draws", "1", "--edges", "1", "--edge-draws", "1", "--out", "out/intervene.json"]
    assert run(*made) == 0
    printed = capsys.readouterr()
    assert f"ranked by, {words} (--objective embedding" in printed.err
    assert f"fall of {words}, mean ablation" in printed.out
    found = Intervention.load("out/intervene.json")
    assert found.objective == Circuit.load("out/circuit.json").objective
    assert sorted(found.command.split()) == sorted(["xaikit", *made])
    assert run("report", "out", "--no-names", "-q") == 0
    page = Path("out/report.html").read_text()
    # Lines are broken between its words alone.
    assert page.replace("<span>", "").replace("</span>", "").count(found.command) == 1
    assert "pushes" in page
    plain = [*made[:-1], "plain.json", "--objective", "embedding", "-q"]
    assert run(*plain) == 0
    assert Intervention.load("plain.json").objective["kind"] == "embedding"


def test_pairs_are_made_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("pairs", "demo", "--factor", "colour", "--count", "6", "--out", "made", "-q") == 0
    images = ["--images", "made/images"]
    few = ["--num-clusters", "4", "--num-permutations", "3", "--target-layer", "2"]
    assert run("run-all", *few, *images, "--no-intervene", "--out-dir", "out", "-q") == 0
    pairs = ["--ablation", "pair", "--pairs", "made/pairs.csv", "--out", "live.json"]
    assert run("intervene", "--run", "out", *FEW, *pairs, "-q") == 0
    found = Intervention.load("live.json")
    assert len(found.partners) == found.num_images
    assert all("colour" in name or "-" not in name for name in found.partners)
    assert run("intervene", "--run", "out", "--ablation", "pair") == 2
    assert "have no partner" in capsys.readouterr().err
    assert run("pairs", "demo", "--factor", "colour", "--out", "made") == 2
    assert run("pairs", "typographic", "made/images") == 2
    Path("words.txt").write_text("cat\n")
    words = ["typographic", "made/images", "--words", "words.txt", "--count", "2", "--out", "w"]
    assert run("pairs", *words, "-q") == 0
    assert len(list(Path("w/images").iterdir())) == 4
