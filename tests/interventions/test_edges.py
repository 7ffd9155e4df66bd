"""Single edges against random ones: which are drawn, and what makes a p-value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xaikit.interventions.edges import EdgeComparison, compare_edges

COUNTS = torch.tensor([[0.0, 4.0, 40.0], [8.0, 90.0, 9.0], [100.0, 0.0, 4.0]])
"""Entries of edges from three clusters to three places, in each of two heads."""


def live_of(signed: bool = False, counts: torch.Tensor = COUNTS) -> Any:
    objective = SimpleNamespace(metric="cosine", signed=signed)
    return SimpleNamespace(shapes=((3, 2, 3),), counts=(counts,), objective=objective)


def cover(edge: tuple[int, ...]) -> float:
    return float(COUNTS[edge[1], edge[3]])


def test_random_edges_cover_something_and_are_none_of_those_tested() -> None:
    edges = [(0, 0, 0, 1), (0, 1, 1, 0)]
    found = compare_edges(live_of(), edges, draws=99, seed=0)
    # Of 18 edges four cover nothing and two are tested.
    assert [len(pool) for pool in found.pools] == [12, 12]
    assert not set(edges) & set(found.drawn)
    assert all(cover(edge) > 0 for edge in found.drawn)


def test_where_few_edges_cover_as_much_the_nearest_in_cover_fill_up() -> None:
    found = compare_edges(live_of(), [(0, 1, 0, 2)], draws=5, seed=0)
    assert sorted(cover(found.drawn[place]) for place in found.pools[0]) == [4, 4, 8, 8, 9]


def test_which_random_edges_are_drawn_follows_from_the_seed() -> None:
    live = live_of(counts=torch.full((3, 3), 5.0))
    one, same, other = (
        compare_edges(live, [(0, 0, 0, 1)], draws=6, seed=seed).drawn for seed in (1, 1, 2)
    )
    assert one == same != other


def compared(pools: list[list[int]]) -> EdgeComparison:
    edges = [(0, 0, 0, 1)] * len(pools)
    return EdgeComparison(edges=edges, drawn=[(0, 0, 1, 1)] * 4, pools=pools)


def effects(*means: float) -> dict[str, torch.Tensor]:
    """Effects on three images, whose medians are other than their means."""
    return {"cosine": torch.tensor([[0.0, 0.0, 3 * mean] for mean in means]).double()}


def test_p_is_of_an_edge_s_own_pool_and_q_of_all_edges_that_are_tested() -> None:
    measured = [effects(5, 2.5, 9), effects(1, 2, 3, 4)]
    found = compared([[0, 1, 2, 3], [1, 2, 3], []]).results(live_of(), measured)
    assert found[0] == pytest.approx([5, 2.5, 9])
    assert found[1] == pytest.approx([1 / 5, 3 / 4, 1])
    assert found[2] == pytest.approx([3 / 5, 1, 1])


@pytest.mark.parametrize(("signed", "expected"), [(True, 2 / 5), (False, 1)])
def test_effects_with_a_sign_are_compared_by_their_size(signed: bool, expected: float) -> None:
    measured = [effects(-3), effects(1, 2, -4, 0.5)]
    if not signed:
        measured[1] = effects(1, 2, 4, 0.5)
    _, pvalues, _ = compared([[0, 1, 2, 3]]).results(live_of(signed), measured)
    assert pvalues == pytest.approx([expected])
