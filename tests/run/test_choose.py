"""`run-all --num-clusters auto` chooses the same number however a run keeps its images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
from command_line import run

from xaikit.artifacts.file_names import NUM_CLUSTERS
from xaikit.artifacts.studies import ClusterSweep
from xaikit.distributed import World
from xaikit.images.scenes import SceneSource
from xaikit.run import choose as module
from xaikit.run.choose import Part, choose_number
from xaikit.run.options import Options
from xaikit.run.reuse import Folder
from xaikit.run.run_all import run_all
from xaikit.run.subject import Subject
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
        found.append(ClusterSweep.load(folder / NUM_CLUSTERS))
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
    chosen = ClusterSweep.load(tmp_path / NUM_CLUSTERS).num_clusters
    assert "chosen" in out
    assert f"of {chosen} clusters used" in out
    assert run(*command, "many") == 2
    assert "a whole number, or auto" in capsys.readouterr().err


def test_a_part_of_a_source_is_those_images_under_their_own_names() -> None:
    source = SceneSource(9, 0)
    part = Part(source, [1, 4, 7])
    assert len(part) == 3
    assert part.ids == [source.ids[i] for i in (1, 4, 7)]
    assert [part.digest(i) for i in range(3)] == [source.digest(i) for i in (1, 4, 7)]
    assert [part.load(i).tobytes() for i in range(3)] == [
        source.load(i).tobytes() for i in (1, 4, 7)
    ]
    grouped: Any = Some(ids=["a", "b", "c"], groups=["x", "y", "z"], describe=lambda: {"kind": "k"})
    assert Part(grouped, [0, 2]).groups == ["x", "z"]
    grouped.groups = None
    assert Part(grouped, [0, 2]).groups is None
    assert Part(grouped, [0, 2]).describe() == {"kind": "part", "of": {"kind": "k"}, "count": 2}


def test_the_number_is_chosen_on_discovery_images_of_every_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    parts = {"discovery": [0, 2, 4, 6], "heldout": [1, 3, 5]}
    monkeypatch.setattr(module, "candidate_parts", lambda _subject: parts)
    monkeypatch.setattr(choose, "IMAGES", 2)

    def recorded(_tower: Any, source: Any, pairs: Any, **more: Any) -> list[str]:
        given.append((source.ids, pairs, more["batch_size"], more["workers"]))
        return [f"trace of {pairs}"]

    def chosen(traces: Any, options: Any, destination: str, progress: Any) -> Any:
        given.append((list(traces), options.holdout, options.seed, destination))
        return Some(num_clusters=11)

    monkeypatch.setattr(module, "trace_layers", recorded)
    monkeypatch.setattr(choose, "choose_clusters", chosen)
    monkeypatch.setattr(Folder, "make", lambda self, name, kind, request, build: build())
    tower: Any = None
    options = Options(num_clusters=None, seed=4, batch_size=5, workers=2, holdout=0.5).settled()
    subject = Subject(tower=tower, source=SceneSource(7, 0), options=options)
    monkeypatch.setattr(Subject, "request", lambda self, pair: Some(key=lambda: str(pair)))
    choose_number(subject, [(0, 1), (1, 2)], Path("out"), False)
    ids = [SceneSource(7, 0).ids[i] for i in (0, 6)]
    assert given == [
        (ids, [(0, 1)], 5, 2),
        (ids, [(1, 2)], 5, 2),
        (["trace of [(0, 1)]", "trace of [(1, 2)]"], 0.0, 4, "cluster"),
    ]
    assert subject.options.num_clusters == 11


@pytest.mark.parametrize("leads", [True, False])
def test_every_process_has_the_number_that_the_first_one_chose(
    monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    def swept(*_: Any) -> Any:
        assert leads
        return Some(num_clusters=6)

    monkeypatch.setattr(module, "_swept", swept)
    sent: list[Any] = []
    world: Any = Some(
        leads=leads, broadcast=lambda found: sent.append(found) or found or {"clusters": 6}
    )
    subject: Any = Some(options=Options(num_clusters=None), world=world)
    choose_number(subject, [(0, 1)], Path("out"), False)
    assert subject.options.num_clusters == 6
    assert (sent == [None]) is not leads
    given: Any = Some(options=Options(num_clusters=3), world=World())
    choose_number(given, [(0, 1)], Path("out"), False)
    assert given.options.num_clusters == 3
