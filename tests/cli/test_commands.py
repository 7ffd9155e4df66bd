"""The commands one after the other, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run, run_stages

from xaikit.artifacts.studies import ClusterSweep
from xaikit.artifacts.tensors import Features, Fit

STAGES = {
    "trace": ["--pretrained", "random", "--max-images", "24", "--batch-size", "8"],
    "cluster": ["--num-clusters", "4", "--holdout", "0.5"],
    "fit": ["--num-permutations", "19"],
    "circuit": ["--top-k", "6", "--heatmap-dir", "heatmaps"],
    "causal": ["--num-permutations", "19"],
    "target-causal": ["--top-n", "3", "--num-permutations", "19"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the six commands ran with their default file names."""
    return run_stages(tmp_path_factory.mktemp("pipeline"), STAGES)


def test_six_commands_write_their_files(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "trace.safetensors",
        "features.safetensors",
        "fit.safetensors",
        "circuit.json",
        "causal.json",
        "target_causal.json",
    }
    assert sorted(path.name for path in (folder / "heatmaps").iterdir()) == [
        f"head_{h}.png" for h in range(4)
    ]
    assert not [name for name in names if name.endswith(".partial")]


def test_json_goes_alone_to_standard_output(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run("circuit", "--top-k", "3", "--json", "--out", "again.json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["paths"]) == 3
    assert printed["circuit"] == "again.json"


def test_each_command_says_its_figures_and_where_its_file_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)

    def both(command: str, *options: str) -> tuple[str, dict[str, Any]]:
        said = []
        for form in ([], ["--json"]):
            assert run(command, *options, "--out", "again", "-q", *form) == 0
            said.append(capsys.readouterr().out)
        return said[0].splitlines()[-1], json.loads(said[1])

    last, found = both("cluster", *STAGES["cluster"])
    features = Features.load(folder / "features.safetensors")
    assert last == "→ again"
    assert found["features"] == "again"
    assert (found["discovery_images"], found["heldout_images"]) == (12, 12)
    assert found["cluster_sizes"] == features.cluster_sizes.tolist()
    assert found["empty_clusters"] == found["cluster_sizes"].count(0)
    assert "sweep" not in found
    last, found = both("cluster", "--num-clusters", "auto")
    assert found["num_clusters"] == ClusterSweep.load(found["sweep"]).num_clusters
    last, found = both("fit", *STAGES["fit"])
    assert last == "→ again"
    assert (found["fit"], found["num_test_images"]) == ("again", 12)
    assert found["r2"] == Fit.load(folder / "fit.safetensors").r2
    last, found = both("causal", *STAGES["causal"])
    assert (last, found["causal"]) == ("→ again", "again")
    last, found = both("target-causal", "--top-n", "2", "--num-permutations", "19")
    assert (last, found["target_causal"], len(found["effects"])) == ("→ again", "again", 2)
    last, found = both("circuit", *STAGES["circuit"])
    assert last == "→ again, 4 heatmaps in heatmaps"
    assert found["heatmaps"] == [f"heatmaps/head_{head}.png" for head in range(4)]


def test_parts_of_another_trace_are_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("trace", "--pretrained", "random", "--seed", "1", "--max-images", "8", "-q") == 0
    assert run("fit", "--features", str(folder / "features.safetensors")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "features" in error
    assert not (tmp_path / "fit.safetensors").exists()


def test_run_all_leaves_out_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "run-all",
        *("--pretrained", "random", "--max-images", "24", "--num-clusters", "4"),
        *("--num-permutations", "19", "--out-dir", str(tmp_path), "--json", "--quiet"),
        "--no-intervene",
    ]
    assert run(*common) == 0
    first = json.loads(capsys.readouterr().out)["layers"][0]
    assert first["reused"] == []
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert run(*common, "--top-k", "7") == 0
    second = json.loads(capsys.readouterr().out)["layers"][0]
    assert {"trace", "cluster", "fit", "causal"} <= set(second["reused"])
    assert "circuit" not in second["reused"]
    assert stamps == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}


def test_several_layers_get_a_folder_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        *("run-all", "--pretrained", "random", "--max-images", "16", "--num-clusters", "3"),
        *("--num-permutations", "9", "--out-dir", str(tmp_path), "--target-layer", "1,3"),
        *("--json", "--quiet", "--no-intervene"),
    )
    assert code == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["layer"] for layer in layers] == [1, 3]
    for layer in (1, 3):
        assert (tmp_path / f"layer_{layer}" / "fit.safetensors").exists()


def test_analysis_imports_no_model_library(folder: Path) -> None:
    script = (
        "import sys; from xaikit.cli import main\n"
        "try: main(['fit', '--num-permutations', '9', '--out', 'lean.safetensors', '-q'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print([m for m in ('open_clip', 'timm', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_help_says_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("circuit", "--help") == 0
    assert "head_<h>.png" in capsys.readouterr().out
    assert run("models", "--help") == 0
    assert "[[" not in capsys.readouterr().out


def test_help_loads_no_torch(monkeypatch) -> None:
    monkeypatch.setenv("XAIKIT_SHAPES", "0")  # what checks shapes may load numpy
    script = (
        "import sys; from xaikit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'open_clip', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_no_command_at_all_shows_what_there_is_and_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run() == 2
    shown = capsys.readouterr()
    assert "run-all" in shown.out
    assert shown.err == ""
