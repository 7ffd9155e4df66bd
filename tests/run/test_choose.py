"""`run-all --num-clusters auto` chooses the same number however a run keeps its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

from xaikit.artifacts.studies import ClusterSweep
from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.run_all import run_all
from xaikit.stages import choose
from xaikit.towers import load_tower


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "SWEEP", (3, 5))
    monkeypatch.setattr(choose, "FOLDS", 2)


@pytest.mark.usefixtures("short")
def test_stored_and_streamed_runs_choose_the_same_number_once(tmp_path: Path) -> None:
    tower, source = load_tower("xaikit-demo", None), SceneSource(16, 0)
    shared = {"num_clusters": None, "recipe": "seed", "intervene": False, "num_permutations": 9}
    found, numbers = [], []
    for stream in (False, True, True):
        folder = tmp_path / str(stream)
        (one,) = run_all(
            tower, source, out_dir=folder, layers=[1], options=Options(**shared, stream=stream)
        )
        found.append(ClusterSweep.load(folder / choose.SWEEP_FILE))
        numbers.append(one.features.num_clusters)
    assert found[0].rows == found[1].rows
    assert numbers == [found[0].num_clusters] * 3
    # The third run found the second one's clusters.
    assert "cluster" not in one.seconds
    assert found[1] == found[2]


@pytest.mark.usefixtures("short")
def test_the_command_line_says_what_was_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, features = tmp_path / "trace.safetensors", tmp_path / "features.safetensors"
    assert run("trace", "--max-images", "8", "--out", str(trace), "-q") == 0
    command = ("cluster", "--trace", str(trace), "--out", str(features), "-q", "--num-clusters")
    assert run(*command, "auto") == 0
    out = capsys.readouterr().out
    chosen = ClusterSweep.load(tmp_path / choose.SWEEP_FILE).num_clusters
    assert "chosen" in out
    assert f"of {chosen} clusters used" in out
    assert run(*command, "many") == 2
    assert "a whole number, or auto" in capsys.readouterr().err
