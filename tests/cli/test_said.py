"""What commands say in the end: the figures they were given, and where the files are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run

from xaikit.cli.cluster import _fields
from xaikit.stages.graph import GraphOptions
from xaikit.towers.registry import ModelRow


def words(text: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in text.splitlines()]


def test_a_graph_s_nodes_and_the_two_kinds_of_edges_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def joined(folder: Path, options: GraphOptions) -> Any:
        asked.append((folder, options.min_share))
        edges = [{"kind": kind} for kind in ("head", "head", "flow", "head", "flow")]
        return folder / "graph.json", {"nodes": [0] * 4, "edges": edges}

    monkeypatch.setattr("xaikit.cli.graph.graph_of_folder", joined)
    assert run("graph", "run", "--min-share", "0.5") == 0
    assert capsys.readouterr().out == "4 clusters, 3 head links, 2 flows → run/graph.json\n"
    assert run("graph", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"graph": "xaikit-out/graph.json", "nodes": 4, "heads": 3, "flows": 2}
    assert asked == [(Path("run"), 0.5), (Path("xaikit-out"), GraphOptions().min_share)]


def model(name: str, family: str, *sizes: int, **more: str) -> ModelRow:
    known = dict(zip(("layers", "heads", "tokens", "width"), sizes, strict=False))
    return ModelRow(name=name, family=family, supported=bool(sizes), **known, **more)


MODELS = [
    model("ViT-Large", "open_clip", 24, 16, 257, 1024),
    model("RN50", "open_clip", reason="a ResNet"),
    model("vit-small", "timm", 12, 6, 50, 384),
]


def test_models_are_found_by_a_part_of_their_name_in_any_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xaikit.towers.list_models", lambda: MODELS)
    assert run("models") == 0
    head, *rows, last = words(capsys.readouterr().out)
    assert head == ["name", "family", "layers", "heads", "tokens", "width", "supported"]
    assert rows == [
        ["ViT-Large", "open_clip", "24", "16", "257", "1024", "yes"],
        # What is refused has no sizes.
        ["RN50", "open_clip", "no:", "a", "ResNet"],
        ["vit-small", "timm", "12", "6", "50", "384", "yes"],
    ]
    assert last[:4] == ["2", "of", "3", "supported;"]
    assert run("models", "VIT", "--json") == 0
    found = json.loads(capsys.readouterr().out)["models"]
    assert [row["name"] for row in found] == ["ViT-Large", "vit-small"]
    assert run("models", "none") == 0
    assert capsys.readouterr().out.startswith("no name in this list contains it")


@pytest.mark.parametrize("passed", [True, False])
def test_a_model_that_fails_its_check_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool
) -> None:
    def checked(model: str) -> Any:
        return Some(passed=passed, describe=lambda: f"{model}: looked at")

    monkeypatch.setattr("xaikit.towers.build_for_check", lambda name: name)
    monkeypatch.setattr("xaikit.towers.self_check", checked)
    assert run("models", "--check", "ViT-S") == (0 if passed else 1)
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        ("ViT-S: looked at\n", "") if passed else ("", "error: ViT-S: looked at\n")
    )


FILE: dict[str, Any] = {
    "file": "x.safetensors",
    "stage": None,
    "kind": "safetensors",
    "bytes": 2048,
    "fields": {"layer": 3},
    "health": [],
    "tensors": [
        {"name": "w[bias]", "dtype": "F32", "shape": [3, 4], "bytes": 48, "sampled": False}
        | {"min": -1.5, "mean": 0.25, "max": 2.0, "not_finite": 0},
        {"name": "n", "dtype": "I64", "shape": [], "bytes": 8, "sampled": True}
        | {"min": None, "mean": None, "max": None, "not_finite": 1234},
    ],
}


def test_a_file_s_tensors_stand_in_their_columns_and_its_health_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xaikit.report.inspection.inspect_file", lambda path: FILE)
    assert run("inspect", "x.safetensors") == 0
    said = words(capsys.readouterr().out)
    assert said[0] == ["x.safetensors:", "no", "stage,", "safetensors,", "2.0", "KB"]
    assert ["layer", "3"] in said
    # The name as it is: it is no markup, and nothing is put before its brackets.
    row = ["w[bias]", "F32", "3", "×", "4", "48", "B", "-1.5", "0.25", "2", "0"]
    assert said[-3] == row
    assert said[-2] == ["n", "I64", "one", "number", "8", "B", "1,234", "(of", "a", "sample)"]
    assert said[-1] == ["healthy"]
    monkeypatch.setitem(FILE, "health", ["it is odd"])
    assert run("inspect", "x.safetensors") == 0
    assert words(capsys.readouterr().out)[-1] == ["!", "it", "is", "odd"]


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `pairs` asks for, in place of drawing."""
    asked: list[Any] = []
    made = {"a": "b", "b": "a", "c": "d", "d": "c"}
    for name, does in {
        "demo_pairs": lambda *given: asked.append(given),
        "read_words": lambda path: path,
        "typographic_pairs": lambda source, *given: asked.append(given),
        "save_pairs": lambda made_, out, suffix: asked.append((out, suffix)) or made,
    }.items():
        monkeypatch.setattr(f"xaikit.images.pairs.{name}", does)
    monkeypatch.setattr(
        "xaikit.interventions.pairs.write_pairs", lambda path, _: asked.append(path)
    )
    monkeypatch.setattr("xaikit.images.open_images", lambda **given: given)
    return asked


def test_pairs_are_of_the_number_and_seed_that_were_asked_for(
    pairs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pairs", "demo", "--seed", "3", "--factor", "shape") == 0
    assert pairs == [(64, "shape", 3), (Path("pairs"), "shape"), Path("pairs/pairs.csv")]
    said = "2 pairs, each image the other's partner\n→ pairs/pairs.csv · pairs/images\n"
    assert capsys.readouterr().out == said
    pairs.clear()
    given = ["typographic", "photos", "--words", "w", "--count", "5", "--out", "x", "--json"]
    assert run("pairs", *given) == 0
    assert pairs == [(Path("w"), 5), (Path("x"), "word"), Path("x/pairs.csv")]
    found = json.loads(capsys.readouterr().out)
    assert found == {"pairs": 2, "images": "x/images", "file": "x/pairs.csv"}


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["demo", "photos"], "leave out IMAGES and --words"),
        (["demo", "--words", "w"], "leave out IMAGES and --words"),
        (["typographic", "photos"], "needs IMAGES and --words FILE"),
        (["typographic", "--words", "w"], "needs IMAGES and --words FILE"),
        (["demo", "--count", "0"], "--count 0: expected 1 or more"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_pairs_need_is_said(
    capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert run("pairs", *given) == 2
    assert said in capsys.readouterr().err


def test_a_report_says_where_its_page_and_its_figures_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "figures"
    page.write_text("four")
    monkeypatch.setattr("xaikit.report.page.write_report", lambda *_, **__: page)
    monkeypatch.setattr(
        "xaikit.report.page.static.write_figures",
        lambda folder, out: [out / f"{folder}{at}.svg" for at in range(3)],
    )
    assert run("report", "run", "--figures", str(figures)) == 0
    assert capsys.readouterr().out == f"→ {page} (4 B)\n→ 3 figures in {figures}\n"
    assert run("report", "run", "--figures", str(figures), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    drawn = [str(figures / f"run{at}.svg") for at in range(3)]
    assert found == {"report": str(page), "bytes": 4, "figures": drawn}


def test_an_export_names_its_folders_and_lists_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("parquet", "csv"):
        files = [Path(f"{kind}/{name}") for name in "ab"]
        monkeypatch.setattr(f"xaikit.stages.export.write_{kind}", lambda _, __, files=files: files)
    columns = {"x": np.arange(1234), "y": np.arange(1234)}
    monkeypatch.setattr("xaikit.stages.export.export_run", lambda folder: {"edges": columns})
    assert run("export", "run", "--csv", "c") == 0
    assert words(capsys.readouterr().out) == [["1,234", "edges"], ["→", "c"]]
    assert run("export", "run", "--csv", "c", "--parquet", "p") == 0
    assert words(capsys.readouterr().out)[-1] == ["→", "p,", "c"]
    assert run("export", "run", "--csv", "c", "--parquet", "p", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    files = ["parquet/a", "parquet/b", "csv/a", "csv/b"]
    assert found == {"tables": {"edges": 1234}, "files": files}


def test_the_figures_of_clusters_are_their_own() -> None:
    sizes, parts = torch.tensor([29, 2, 0, 1]), {"discovery": [0, 1, 2], "heldout": [3]}
    found: Any = Some(num_clusters=4, inertia=0.5, cluster_sizes=sizes, **parts)
    assert _fields(found) == {
        "num_clusters": 4,
        "inertia": 0.5,
        "cluster_sizes": [29, 2, 0, 1],
        "empty_clusters": 1,
        "discovery_images": 3,
        "heldout_images": 1,
    }
