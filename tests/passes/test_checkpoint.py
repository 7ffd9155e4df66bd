"""What an interrupted pass leaves: found again by what decides it, and removed by who made it."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
import torch

from xaikit.distributed import World
from xaikit.errors import XaikitWarning
from xaikit.images import Skipped, SkippedImages
from xaikit.passes import checkpoint as module
from xaikit.passes.checkpoint import Checkpoint, remove_checkpoints
from xaikit.passes.feed import Visitor, chunks

PASSES = [[block] for block in chunks(np.arange(6), 2)]


class Sums(Visitor):
    """One number, and whatever it is told to go on from."""

    def __init__(self, value: float = 0.0) -> None:
        self.value, self.loaded = torch.tensor(value), None

    def state(self) -> dict[str, torch.Tensor]:
        """The number."""
        return {"value": self.value}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Another number."""
        self.loaded, self.value = sorted(state), state["value"]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(module, "_SHARE", 0.0)


def kept(folder: Any, key: str = "k", name: str = "sums", passes: Any = PASSES, world: Any = None):
    """A pass with a visitor of each of two pairs of layers."""
    visitors = {(1, 2): [Sums()], (2, 3): [Sums()]}
    owner = Checkpoint(folder, key, world or World())
    return owner, visitors, owner.of(name, passes, visitors)


def test_a_pass_goes_on_with_its_sums_and_with_what_it_left_out(tmp_path: Any) -> None:
    _, visitors, first = kept(tmp_path)
    visitors[1, 2][0].value, visitors[2, 3][0].value = torch.tensor(5.0), torch.tensor(7.0)
    first.passed(2, SkippedImages([Skipped("a", "torn", 3), Skipped("b", "gone", None)]))
    _, again, second = kept(tmp_path)
    skipped = SkippedImages([Skipped("b", "gone", None)])
    assert second.resume(skipped) == 2
    assert (float(again[1, 2][0].value), float(again[2, 3][0].value)) == (5.0, 7.0)
    # Each image is named once, whoever met it.
    assert skipped.records == [Skipped("b", "gone", None), Skipped("a", "torn", 3)]


@pytest.mark.parametrize(
    "other",
    [
        {"key": "other"},
        {"name": "learn"},
        {"passes": PASSES[:2]},
        {"passes": PASSES[::-1]},
        {"passes": [[*PASSES[0], *PASSES[1]], PASSES[2]]},
    ],
    ids=["key", "pass", "fewer", "order", "size"],
)
def test_a_pass_that_is_another_in_anything_starts_at_the_beginning(
    tmp_path: Any, other: dict[str, Any]
) -> None:
    kept(tmp_path)[2].passed(2, SkippedImages())
    _, visitors, second = kept(tmp_path, **other)
    assert second.resume(SkippedImages()) == 0
    assert visitors[1, 2][0].loaded is None


def test_each_process_has_its_own_and_another_number_of_them_none(tmp_path: Any) -> None:
    for rank in range(2):
        kept(tmp_path, world=Some(rank=rank, size=2))[2].passed(rank + 1, SkippedImages())
    done = [
        kept(tmp_path, world=Some(rank=rank, size=2))[2].resume(SkippedImages()) for rank in (0, 1)
    ]
    assert done == [1, 2]
    assert kept(tmp_path)[2].resume(SkippedImages()) == 0


def test_the_sums_of_a_tenth_visitor_are_not_those_of_the_first(tmp_path: Any) -> None:
    visitors = {(1, 2): [Sums(float(at)) for at in range(12)]}
    owner = Checkpoint(tmp_path, "k", World())
    owner.of("sums", PASSES, visitors).passed(1, SkippedImages())
    again = {(1, 2): [Sums() for _ in range(12)]}
    owner.of("sums", PASSES, again).resume(SkippedImages())
    assert [float(each.value) for each in again[1, 2]] == list(range(12))
    assert {tuple(each.loaded or ()) for each in again[1, 2]} == {("value",)}


def test_a_damaged_one_is_said_and_the_pass_starts_again(tmp_path: Any) -> None:
    owner, _, first = kept(tmp_path)
    first.passed(2, SkippedImages())
    path = owner.path("sums")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(XaikitWarning, match="a pass starts again: .*sums-0-of-1"):
        assert kept(tmp_path)[2].resume(SkippedImages()) == 0


@pytest.mark.parametrize("found", [False, True])
def test_what_a_run_made_or_went_on_from_is_its_to_remove(tmp_path: Any, found: bool) -> None:
    folder = tmp_path / "state"
    owner, _, first = kept(folder)
    first.passed(1, SkippedImages())
    kept(folder, name="learn")[2].passed(1, SkippedImages())
    if found:
        owner, _, second = kept(folder)
        second.resume(SkippedImages())
    owner.forget()
    assert [path.name for path in folder.iterdir()] == ["learn-0-of-1.safetensors"]
    other, _, third = kept(folder, name="learn")
    third.resume(SkippedImages())
    other.forget()
    assert not folder.exists()


def test_nothing_is_removed_before_every_process_is_done(tmp_path: Any) -> None:
    steps: list[bool] = []
    world = Some(rank=0, size=2, leads=True)
    owner, _, first = kept(tmp_path / "state", world=world)
    first.passed(1, SkippedImages())
    world.barrier = lambda: steps.append(owner.path("sums").exists())
    owner.forget()
    assert steps == [True, False]


def test_what_interrupted_runs_left_goes_and_nothing_else(tmp_path: Any) -> None:
    for name in ("sums-1-0-of-2.safetensors", "learn-3-0-of-1.safetensors"):
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / name).write_text("")
    mine = ["mine.safetensors", "notes.txt", "sums-1-0-of-2.safetensors.bak"]
    mine += ["model-00001-of-00002.safetensors"]
    for name in mine:
        (tmp_path / "state" / name).write_text("")
    remove_checkpoints(tmp_path / "state")
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == sorted(mine)
    remove_checkpoints(tmp_path / "none")


def test_checkpoints_are_made_seldom_and_cost_a_small_share(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "SECONDS", 300.0)
    monkeypatch.setattr(module, "_SHARE", 20.0)
    saved: list[float] = []

    def save(*_: Any) -> None:
        saved.append(now[0])
        now[0] += 40.0

    _, _, one = kept(tmp_path)
    monkeypatch.setattr(Checkpoint, "save", save)
    while now[0] < 3600.0:
        one.passed(1, SkippedImages())
        now[0] += 10.0
    # After 300 s, and then, as each takes 40 s, not before another 800 s.
    assert saved[0] == 1300.0
    assert all(800 <= b - a - 40 < 820 for a, b in pairwise(saved))
    assert len(saved) == 3
