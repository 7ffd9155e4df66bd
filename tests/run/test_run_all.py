"""What a run refuses and settles before any work."""

from __future__ import annotations

from pathlib import Path
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
