"""What a run refuses and settles before any work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.holding import LOCK
from xaikit.artifacts.storage import Storage
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.run import run_all as module
from xaikit.run.options import Options
from xaikit.run.run_all import run_all
from xaikit.run.subject import Subject
from xaikit.stages.choose import SWEEP
from xaikit.towers import load_tower


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stream": True, "bootstrap": 3}, "`bootstrap=` needs the trace"),
        ({"stream": True, "control": "untrained"}, "`control=` needs the trace"),
        ({"bootstrap": 3, "rank": "reach"}, "which `rank=reach` would take a run of the model for"),
        ({"group": "folder"}, "`group=folder`: the images lie in no folders"),
        ({"labels": "none.txt"}, "none.txt"),
        ({"layers": [1, 2], "next_attn_layer": 3}, "goes with one `target_layer=`"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_what_cannot_be_done_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    def work(*_: Any) -> None:
        pytest.fail("work was done")

    monkeypatch.setattr(module, "choose_number", work)
    beside = {
        name: given.pop(name) for name in ("control", "layers", "next_attn_layer") if name in given
    }
    chosen = Options(recipe="seed", **given)
    tower, source = load_tower("xaikit-demo", "random"), SceneSource(4, 0)
    with pytest.raises(UsageError) as refused:
        run_all(tower, source, out_dir=tmp_path / "run", options=chosen, **beside)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_options_are_made_to_go_with_one_another_and_the_folder_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):  # noqa: N818
        """The run begins."""

    seen: list[Any] = []

    def reached(subject: Subject, *_: Any) -> None:
        seen.append((subject.options.storage, (tmp_path / LOCK).exists()))
        raise Reached

    monkeypatch.setattr(module, "choose_number", reached)
    monkeypatch.setattr(World, "broadcast", lambda self, tensors: dict(tensors))
    tower, source = load_tower("xaikit-demo", "random"), SceneSource(4, 0)
    for method, world in (("kmeans", World()), ("guided", World()), ("kmeans", World(0, 2))):
        options = Options(method=method, storage=Storage())
        with pytest.raises(Reached):
            run_all(tower, source, out_dir=tmp_path, options=options, world=world)
    shared = Storage(shard_images=module.SHARED_SHARD)
    assert seen == [(Storage(), True), (Storage(store_qk=True), True), (shared, True)]


def test_a_forecast_of_a_number_that_is_still_to_be_chosen_is_of_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "forecast", lambda subject, _pairs: subject.options.num_clusters)
    tower, source = load_tower("xaikit-demo", "random"), SceneSource(4, 0)
    asked = [module.planned(tower, source, options=Options(num_clusters=n)) for n in (None, 7)]
    assert asked == [max(SWEEP), 7]


def test_a_plan_refuses_what_the_run_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def forecast(*_: Any) -> None:
        pytest.fail("a batch was run")

    monkeypatch.setattr(module, "forecast", forecast)
    tower, source = load_tower("xaikit-demo", "random"), SceneSource(4, 0)
    with pytest.raises(UsageError):
        module.planned(tower, source, options=Options(toward="a cat"))
    with pytest.raises(UsageError):
        module.planned(tower, source, options=Options(labels="none.txt"))


def test_prompts_are_needed_for_the_folders_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "read_labels", lambda path: ([], {"dogs": 0}))
    monkeypatch.setattr(module, "folder_targets", lambda *given: asked.append(given))
    source = Some(ids=["a", "b", "c"])
    subject: Any = Some(source=source, options=Some(intervene=True), labels="labels.json")
    subject.objective, subject.candidates = lambda ids: None, 2
    module._require_objective(subject)
    assert asked == [(source, {"dogs": 0}, ["a", "b"])]
    subject.options.intervene = False
    module._require_objective(subject)
    assert len(asked) == 1


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_the_first_process_goes_on_alone_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leads: bool, stream: bool
) -> None:
    done: list[str] = []

    class Layers:
        """A run of all layers."""

        scratch = "scratch"

        def __init__(self, *_: Any) -> None:
            self.stored = lambda: done.append("stored")
            self.streamed = lambda: done.append("streamed")
            self.rest = lambda control: done.append("rest") or ["a layer"]

    monkeypatch.setattr(module, "AllLayers", Layers)
    monkeypatch.setattr(module, "choose_number", lambda *_: None)
    monkeypatch.setattr(module, "remove_checkpoints", done.append)
    monkeypatch.setattr(module, "holding", lambda *_: nullcontext())
    tower, source = load_tower("xaikit-demo", "random"), SceneSource(4, 0)
    world = World() if leads else World(1, 2)
    options = Options(stream=stream, recipe="seed")
    found = run_all(tower, source, out_dir=tmp_path, options=options, world=world)
    first = ["streamed" if stream else "stored"]
    assert done == first + (["scratch", "rest"] if leads else [])
    assert list(found) == (["a layer"] if leads else [])
