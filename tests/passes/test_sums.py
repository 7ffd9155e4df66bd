"""Draws of permutations fit into their share of memory, or are filled in passes of their own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch

from xaikit.errors import XaikitError
from xaikit.passes import sums as module
from xaikit.passes.feed import Visitor
from xaikit.passes.pair_sums import SumOptions
from xaikit.passes.plan import make_plan
from xaikit.passes.sums import SumsPass
from xaikit.statistics.block_null import Draws

PAIRS = [(0, 1), (1, 2), (2, 3)]
OPTIONS = SumOptions(clusters=3, destination="token", draws=4, null_block=8, seed=0)


def made(memory: int, options: SumOptions = OPTIONS) -> SumsPass:
    """A pass over three pairs of layers with 2 heads and 5 tokens."""
    feed: Any = Some(info=lambda pair: Some(heads=2, tokens=5))
    plan = make_plan({"discovery": range(30), "heldout": range(30, 60)}, 8, 0)
    means = {pair: torch.zeros(2, 5, 5, dtype=torch.float64) for pair in PAIRS}
    labels: Any = dict.fromkeys(PAIRS)
    return SumsPass(feed, plan, options, means, labels, memory=memory)


@pytest.mark.parametrize(
    ("tables", "groups"),
    [(3.0, [PAIRS]), (2.5, [PAIRS[:2], PAIRS[2:]]), (2.0, [PAIRS[:2], PAIRS[2:]])]
    + [(share, [[pair] for pair in PAIRS]) for share in (1.9, 1.0, 0.1)],
)
def test_tables_of_draws_are_filled_together_as_far_as_they_fit(
    tables: float, groups: list[list[tuple[int, int]]]
) -> None:
    each = Draws.bytes_needed(OPTIONS.shape(2, 5), OPTIONS.draws)
    found = made(int(tables * each))
    # Beside the sums only where those of all pairs fit.
    assert (found.fused, found.apart) == (tables >= 3, tables < 3)
    assert [sums.draws is not None for sums in found.sums.values()] == [tables >= 3] * 3
    assert found._draw_groups() == groups


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    found = made(10**9, SumOptions(**{**vars(OPTIONS), "draws": 0}))
    assert not found.fused
    assert not found.apart


def test_draws_have_the_seed_and_number_that_are_asked_for_and_images_to_permute() -> None:
    options = SumOptions(**{**vars(OPTIONS), "seed": 5, "draws": 3})
    found = made(10**9, options)._draws(PAIRS[0])
    assert (found.seed, found.draws) == (5, 3)
    feed: Any = Some(info=lambda pair: Some(heads=2, tokens=5))
    plan = make_plan({"discovery": range(30)}, 8, 0)
    plan = replace(plan, blocks=[replace(block, drawn=False) for block in plan.blocks])
    means = {PAIRS[0]: torch.zeros(2, 5, 5, dtype=torch.float64)}
    labels: Any = dict.fromkeys(PAIRS)
    assert not SumsPass(feed, plan, OPTIONS, means, labels, memory=10**9).fused


def rows_of(discovery: int, heldout: int | None) -> dict[str, torch.Tensor]:
    """Labels of so many images of each part."""
    found = {"discovery": torch.zeros(discovery, 5, dtype=torch.int64)}
    if heldout is not None:
        found["heldout"] = torch.zeros(heldout, 5, dtype=torch.int64)
    return found


@pytest.mark.parametrize(("heldout", "tested"), [(4, "heldout"), (0, "discovery")])
def test_draws_belong_to_the_images_that_are_tested(
    monkeypatch: pytest.MonkeyPatch, heldout: int, tested: str
) -> None:
    monkeypatch.setattr(module, "finished", lambda sums, rows, draws: (sums, len(rows), draws))
    found = made(10**9)
    parts: Any = Some(parts={"discovery": "d", "heldout": "h"})
    draws: Any = "draws"
    made_of: Any = found._finished(parts, PAIRS[0], rows_of(6, heldout), draws)
    assert made_of.train == ("d", 6, "draws" if tested == "discovery" else None)
    assert made_of.test == (made_of.train if tested == "discovery" else ("h", 4, "draws"))
    with pytest.raises(XaikitError, match="none of the discovery images can be used"):
        found._finished(parts, PAIRS[0], rows_of(0, 4), draws)


def test_the_block_that_labels_are_permuted_within_is_none_where_moments_are_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "finished", lambda *_: "part")
    parts: Any = Some(parts={"discovery": "d"})
    for block, expected in ((8, 8), (0, 0)):
        found = made(10**9, SumOptions(**{**vars(OPTIONS), "null_block": block}))
        made_of: Any = found._finished(parts, PAIRS[0], rows_of(6, None), None)
        assert made_of.null_block == expected


class First(Visitor):
    """Labels that want to see the gates first."""

    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps

    def block(self, *_: Any) -> None:
        """Nothing."""

    def reduce(self, world: Any) -> None:
        """Say that it was asked."""
        self.steps.append(("labels", world))


@pytest.mark.parametrize("finite", [True, False])
def test_a_pass_shows_labels_the_gates_first_and_believes_numbers_alone(finite: bool) -> None:
    found, steps = made(10**9), []
    labels: Any = First(steps)
    found.pairs, found.labels = PAIRS[:1], {PAIRS[0]: labels}
    seen: Any = {"world": "world", "visit": lambda blocks, visitors, **_: steps.append(visitors)}
    found.feed = Some(**seen)
    parts = {"discovery": Some(finite=lambda: True), "heldout": Some(finite=lambda: finite)}
    sums: Any = Some(parts=parts, reduce=lambda world: steps.append(("sums", world)))
    norms: Any = Some(reduce=lambda world: steps.append(("norms", world)))
    found.sums, found.norms = {PAIRS[0]: sums}, {PAIRS[0]: norms}
    if finite:
        found.run(lambda *_: None)
    else:
        with pytest.raises(XaikitError, match="attention logits of layer 1 are not finite"):
            found.run(lambda *_: None)
    assert steps[0] == {PAIRS[0]: [labels, norms, sums]}
    assert steps[1:] == [("labels", "world"), ("norms", "world"), ("sums", "world")]


def test_draws_of_their_own_pass_are_of_the_drawn_blocks_and_brought_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[Any] = []
    told: Any = Some(draws="draws", reduce=steps.append)
    monkeypatch.setattr(module, "DrawBlocks", lambda *_: told)
    found = made(0)
    assert found.apart
    assert [block.drawn for block in found.plan.drawn] == [True] * len(found.plan.drawn)
    assert len(found.plan.drawn) < len(found.plan.blocks)
    seen: Any = {"world": "world", "visit": lambda blocks, *_, **__: steps.append(blocks)}
    found.feed = Some(**seen)
    assert found._drawn(PAIRS[:1], lambda *_: None) == {PAIRS[0]: "draws"}
    assert steps == [found.plan.drawn, "world"]


@pytest.mark.parametrize("leads", [True, False])
def test_every_process_has_the_mean_of_all(leads: bool) -> None:
    own, shared = torch.zeros(1), torch.ones(1)
    given: list[Any] = []

    def broadcast(tensors: Any) -> Any:
        given.append(tensors)
        return {"mean": shared}

    steps: list[Any] = []
    world: Any = Some(leads=leads, broadcast=broadcast)
    visitor: Any = Some(mean=own, reduce=steps.append)
    assert module.shared_means({PAIRS[0]: visitor}, world) == {PAIRS[0]: shared}
    assert steps == [world]
    assert given == [{"mean": own} if leads else None]
