"""`baselines`, `stability` and the options of `run-all` that they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from PIL import Image

SMALL = ("--pretrained", "random", "--max-images", "16")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traced") / "trace.safetensors"
    assert run("trace", *SMALL, "--out", str(path), "-q") == 0
    return path


def test_a_model_of_random_weights_is_its_own_control(
    trace: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("--num-clusters", "3", "--draws", "2", "--json", "-q")
    out = tmp_path / "baselines.json"
    assert run("baselines", *SMALL, *options, "--out", str(out)) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(out.read_bytes())
    assert {key: written[key] for key in written if key != "digest"} == printed
    rows = {(row["prediction"], row["destination"]): row for row in printed["rows"]}
    for where in ("token", "cluster"):
        own = rows[("position + clusters", where)]
        control = rows[("random weights: position + clusters", where)]
        assert control["r2"] == pytest.approx(own["r2"], abs=1e-6)
    # A trace says of which model and images it is.
    assert run("baselines", "--trace", str(trace), *options) == 0
    again = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["prediction"], row["destination"]) for row in again} == set(rows)
    for row in again:
        key = (row["prediction"], row["destination"])
        assert row["r2"] == pytest.approx(rows[key]["r2"], abs=1e-5)


def test_a_control_of_other_images_is_refused(
    trace: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    other = ("--images", str(tmp_path), "--num-clusters", "2", "-q")
    assert run("baselines", "--trace", str(trace), *other) == 2
    said = "error: --control random-weights: the images are not those of the trace; pass the same"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "options", "named"),
    [
        ("stability", ("--model", "ViT-B-32", "--target-layer", "2"), "--model, --target-layer"),
        ("stability", ("--images", "photos", "--batch-size", "3"), "--images"),
        (
            "baselines",
            ("--pretrained", "openai", "--max-images", "3"),
            "--pretrained, --max-images",
        ),
        ("baselines", ("--control", "none", "--model", "ViT-B-32"), "--model"),
    ],
)
def test_what_a_trace_says_already_is_not_taken_and_left_in_silence(
    trace: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: tuple[str, ...],
    named: str,
) -> None:
    assert run(command, "--trace", str(trace), *options, "-q") == 2
    said = f"error: {named}: --trace has its own model and images; leave out one or the other"
    assert said in capsys.readouterr().err


def test_stability_prints_a_table_for_a_terminal_and_for_a_page(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--num-clusters", "2,4", "--seeds", "2", "--bootstrap", "3", "-q")
    assert run("stability", "--trace", str(trace), *options) == 0
    assert "ARI" in capsys.readouterr().out
    assert run("stability", "--trace", str(trace), *options, "--markdown") == 0
    page = capsys.readouterr().out
    assert page.count("\n| 2 |") == page.count("\n| 4 |") == 1
    assert run("stability", "--trace", str(trace), "--num-clusters", "8;16", "-q") == 2
    assert "--num-clusters 8;16" in capsys.readouterr().err


def test_run_all_resamples_and_controls_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("run-all", *SMALL, "--recipe", "seed", "--holdout", "0.5", "--num-clusters", "3")
    common = (*common, "--num-permutations", "9")
    common = (*common, "--top-k", "5", "--out-dir", str(tmp_path), "--json", "-q")
    assert run(*common) == 0
    plain = json.loads(capsys.readouterr().out)["layers"][0]
    assert plain["stability"] == {}
    assert {"shuffled_added", "shuffled_added_sd", "position_added"} <= plain["controls"].keys()
    extra = ("--bootstrap", "4", "--control", "random-weights")
    assert run(*common, *extra) == 0
    found = json.loads(capsys.readouterr().out)["layers"][0]
    assert found["stability"]["resamples"] == 4
    assert found["controls"]["random_weights_added"] == pytest.approx(found["r2_added"], abs=1e-6)
    # What a control adds is part of the fit, which is made again; its clusters are not.
    assert found["reused"] == ["trace", "cluster"]
    paths = json.loads((tmp_path / "circuit.json").read_bytes())["paths"]
    assert all(0 <= path["survival"] <= 1 for path in paths)
    assert run(*common, *extra) == 0
    again = json.loads(capsys.readouterr().out)["layers"][0]
    assert again["controls"] == found["controls"]
    assert {"fit", "circuit"} <= set(again["reused"])
    assert "control" not in again["seconds"]
