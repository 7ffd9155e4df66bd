"""Draws of permutations fit into their share of memory, or are filled in passes of their own."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch

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
