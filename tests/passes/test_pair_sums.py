"""Sums of one pair of layers: each block goes to its part, and draws see the drawn blocks alone."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch

from xaikit.passes import pair_sums as module
from xaikit.passes.feed import SeenBlock
from xaikit.passes.pair_sums import DrawBlocks, PairSums, SumOptions
from xaikit.passes.plan import make_plan

OPTIONS = {"clusters": 3, "destination": "token", "draws": 4, "null_block": 8, "seed": 7}
PLAN = make_plan({"discovery": range(40), "heldout": range(40, 240)}, 8, 0)


class Sums:
    """What sums are made with and told."""

    def __init__(self, shape: Any, mean: Any, **given: Any) -> None:
        self.shape, self.mean, self.given = shape, mean, given
        self.added: list[Any] = []
        self.loaded: Any = None

    def add(self, *given: Any) -> None:
        """Another block."""
        self.added.append(given)

    def state(self) -> dict[str, Any]:
        """Of two names."""
        return {"sum": f"{self.given['energy']} sum", "draws/x": "inner"}

    def load(self, state: dict[str, Any]) -> None:
        """What was kept."""
        self.loaded = state


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EdgeSums", Sums)
    monkeypatch.setattr(module, "shuffle_count", lambda shape: 5)


def made(draws: Any = None, **changed: Any) -> PairSums:
    options = SumOptions(**{**OPTIONS, **changed})
    labels: Any = Some(of=lambda block: f"labels of {block.planned.part} {block.planned.number}")
    return PairSums(options, options.shape(2, 5), PLAN, labels, "mean", draws, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(("controls", "shuffles"), [(True, 5), (False, 0)])
def test_both_parts_have_the_seed_and_only_discovery_the_energy(
    controls: bool, shuffles: int
) -> None:
    sums: dict[str, Any] = dict(made(controls=controls).parts)
    assert list(sums) == ["discovery", "heldout"]
    for part, each in sums.items():
        assert (each.mean, each.given["seed"], each.given["shuffles"]) == ("mean", 7, shuffles)
        assert each.given["energy"] == (part == "discovery")
        assert each.given["exact"] is False


def test_each_block_goes_to_its_part_with_its_number_and_group_and_draws_where_it_is_drawn() -> (
    None
):
    draws: Any = Some(state=lambda: {"values": "v"})
    sums, attention = made(draws), Some(logits="logits")
    for block in PLAN.blocks:
        sums.attention(SeenBlock(block, block.images), attention)  # type: ignore[arg-type]
    for part, each in sums.parts.items():
        blocks = PLAN.of(part)
        expected = [
            (
                f"labels of {part} {block.number}",
                "logits",
                block.number,
                draws if block.drawn else None,
                block.group,
            )
            for block in blocks
        ]
        assert each.added == expected  # type: ignore[attr-defined]
    drawn = [block.drawn for block in PLAN.of("heldout")]
    assert 0 < sum(drawn) < len(drawn)


def test_what_is_kept_of_parts_and_draws_goes_back_to_each() -> None:
    loaded: list[Any] = []
    draws: Any = Some(state=lambda: {"values": "v"}, load=loaded.append)
    state = made(draws).state()
    assert set(state) == {
        *(f"{part}/{name}" for part in ("discovery", "heldout") for name in ("sum", "draws/x")),
        "draws/values",
    }
    again = made(draws)
    again.load(state)
    assert loaded == [{"values": "v"}]
    for part, each in again.parts.items():
        own = {"sum": f"{part == 'discovery'} sum", "draws/x": "inner"}
        assert each.loaded == own  # type: ignore[attr-defined]


def test_every_process_adds_its_sums_and_its_draws() -> None:
    steps: list[Any] = []
    sums = made(Some(reduce=lambda world: steps.append(("draws", world))))
    for part, each in sums.parts.items():
        each.reduce = lambda world, part=part: steps.append((part, world))  # type: ignore[method-assign,misc]
    world: Any = "world"
    sums.reduce(world)
    assert steps == [("discovery", world), ("heldout", world), ("draws", world)]


def test_a_pass_of_draws_alone_adds_up_nothing_but_permutes_each_block_by_its_number() -> None:
    labels: Any = Some(of=lambda block: f"labels {block.planned.number}")
    draws: Any = "draws"
    shape = SumOptions(**OPTIONS).shape(2, 5)  # type: ignore[arg-type]
    mean: Any = torch.zeros(2, 5, 5)
    found: Any = DrawBlocks(shape, labels, mean, draws, torch.device("cpu"))
    assert found._sums.given["null"] is False
    for block in PLAN.drawn[:3]:
        found.attention(SeenBlock(block, block.images), Some(logits="logits"))
    assert found._sums.added == [
        (f"labels {number}", "logits", number, "draws") for number in range(3)
    ]
