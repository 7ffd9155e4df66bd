"""Edges, the entries they cover, and orders on the axis of covered entries."""

from __future__ import annotations

import pytest
import torch
from planted_run import planted_run

from xaikit.interventions import (
    SHARES,
    EdgeSet,
    cover_share,
    edge_set,
    entry_counts,
    order_edges,
    random_order,
    spread,
)
from xaikit.interventions.covers import edge_key, flat_place, shared_covers

DESTINATIONS = ["token", "cluster"]


def made(destination: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels [5, 6] of 3 clusters, and a table of 2 heads."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (5, 6), generator=generator)
    width = 3 if destination == "cluster" else 6
    return labels, torch.rand(3, 2, width, generator=generator)


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_every_entry_is_looked_up_at_its_edge(destination: str) -> None:
    labels, table = made(destination)
    found = spread(table, labels, destination)
    assert found.shape == (5, 2, 6, 6)
    for b in range(5):
        for h in range(2):
            for i in range(6):
                for j in range(6):
                    goal = labels[b, j] if destination == "cluster" else j
                    assert found[b, h, i, j] == table[labels[b, i], h, goal]


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_counts_are_the_entries_of_each_edge(destination: str) -> None:
    labels, table = made(destination)
    counts = entry_counts(labels, 3, destination)
    for index in range(table[:, 0].numel()):
        edge = divmod(index, table.shape[2])
        marked = edge_set([(0, edge[0], 1, edge[1])], [tuple(table.shape)])
        covered = int(spread(marked.tables[0], labels, destination).sum())
        assert covered == int(counts[edge])
        assert cover_share(marked, [counts]) == pytest.approx(covered / (5 * 2 * 36))


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_shares_of_entries_are_what_they_say_and_nest(destination: str) -> None:
    live = planted_run(destination).live()
    site = live.sites[0]
    order = order_edges("contrast", [site.fit.contrast.abs()], live.counts, live.support)
    for other in (order, random_order(live.counts, live.shapes, [3])):
        before: torch.Tensor | None = None
        for share in SHARES:
            mask = other.set_of(share).mask(0, site.labels, site.jitter, destination)
            assert before is None or not bool((before & ~mask).any())
            before = mask
            # The boundary edge is covered in part, by chance of the row.
            assert float(mask.double().mean()) == pytest.approx(share, rel=0.05, abs=2e-4)
        assert before is not None
        assert bool(before.all())


def test_whole_edges_lie_inside_their_threshold() -> None:
    counts = torch.tensor([[2.0, 2.0], [6.0, 6.0]]).double()
    scores = torch.tensor([[[0.5, 3.0]], [[2.0, 1.0]]])
    order = order_edges("made up", [scores], [counts])
    assert order.ranked.tolist() == [1, 2, 3, 0]
    assert order.threshold(2 / 16) == pytest.approx(1.0)
    assert order.threshold(5 / 16) == pytest.approx(1.5)
    assert (order.edges(2 / 16), order.edges(5 / 16), order.edges(1.0)) == (1, 2, 4)
    assert order.threshold(1.0) == 4.0
    half = order.set_of(5 / 16)
    assert half.tables[0].tolist() == [[[False, True]], [[False, False]]]
    assert (half.boundary, half.part) == ((0, 1, 0, 0), pytest.approx(0.5))


def test_edges_without_support_come_last_and_ties_are_in_index_order() -> None:
    counts = torch.ones(2, 2).double()
    support = torch.tensor([[1, 0], [1, 1]])
    scores = torch.tensor([[[1.0, 9.0]], [[1.0, 1.0]]])
    assert order_edges("made up", [scores], [counts], [support]).ranked.tolist() == [0, 2, 3, 1]


def test_edges_that_cover_nothing_do_not_move_the_axis() -> None:
    counts = torch.tensor([[0.0], [4.0]]).double()
    order = order_edges("made up", [torch.tensor([[[2.0]], [[1.0]]])], [counts])
    assert order.threshold(0.5) == pytest.approx(1.5)
    assert order.threshold(1.0) == 2.0


SHAPES = ((2, 3, 4), (5, 3, 5))


def test_edges_of_several_layers_have_one_place_each() -> None:
    keys = [edge_key(flat, SHAPES) for flat in range(2 * 3 * 4 + 5 * 3 * 5)]
    assert keys[0] == (0, 0, 0, 0)
    assert keys[2 * 3 * 4] == (1, 0, 0, 0)
    assert len(set(keys)) == len(keys)
    assert [flat_place(key, SHAPES) for key in keys] == list(range(len(keys)))
    with pytest.raises(IndexError):
        edge_key(len(keys), SHAPES)


def test_layers_are_ranked_together_and_a_share_is_of_all_their_entries() -> None:
    counts = [torch.full((2, 4), 3.0).double(), torch.full((5, 5), 1.0).double()]
    scores = [torch.zeros(SHAPES[0]), torch.zeros(SHAPES[1])]
    scores[1][4, 2, 1], scores[0][1, 0, 2] = 9.0, 5.0
    order = order_edges("made up", scores, counts)
    assert order.keys(0, 2) == [(1, 4, 2, 1), (0, 1, 0, 2)]
    total = 3 * (8 * 3 + 25)
    assert order.threshold(4 / total) == pytest.approx(2.0)
    both = order.set_of(4 / total)
    assert [int(table.sum()) for table in both.tables] == [1, 1]
    assert cover_share(both, counts) == pytest.approx(4 / total)
    against = order_edges("made up", scores, counts, side="against")
    assert set(against.keys(97, 99)) == {(1, 4, 2, 1), (0, 1, 0, 2)}


def test_a_set_touches_the_layers_it_has_edges_in() -> None:
    one = edge_set([(1, 0, 0, 0)], SHAPES)
    assert [one.touches(site) for site in (0, 1)] == [False, True]
    assert [one.touches(site, keep=True) for site in (0, 1)] == [True, True]
    whole = EdgeSet(tables=tuple(torch.ones(shape, dtype=torch.bool) for shape in SHAPES))
    assert not any(whole.touches(site, keep=True) for site in (0, 1))
    partly = EdgeSet(tables=edge_set([], SHAPES).tables, boundary=(0, 1, 1, 1), part=0.5)
    assert [partly.touches(site) for site in (0, 1)] == [True, False]


def test_what_two_orders_share_is_a_share_of_the_first_one_s_cover() -> None:
    # One entry, three, four: the first order takes the first two, the second the last two.
    counts = [torch.tensor([[1.0], [3.0], [4.0]]).double()]
    one = order_edges("a", [torch.tensor([3.0, 2, 1]).reshape(3, 1, 1)], counts)
    other = order_edges("b", [torch.tensor([1.0, 2, 3]).reshape(3, 1, 1)], counts)
    shares = (1 / 8, 4 / 8, 7 / 8)
    # Of the first order's two edges, neither is the second one's; of seven entries three are.
    found = shared_covers(one, other, counts, shares)
    assert [record["share"] for record in found] == list(shares)
    assert [record["shared"] for record in found] == [0.0, 0.0, pytest.approx(3 / 4)]
    assert [each["shared"] for each in shared_covers(other, one, counts, (7 / 8,))] == [3 / 7]
    assert [each["shared"] for each in shared_covers(one, one, counts, shares)] == [1.0] * 3


def test_an_order_that_begins_with_edges_without_an_entry_shares_nothing() -> None:
    counts = [torch.tensor([[0.0], [4.0]]).double()]
    order = order_edges("a", [torch.tensor([2.0, 1.0]).reshape(2, 1, 1)], counts)
    assert shared_covers(order, order, counts, (1e-9, 1.0)) == [{"share": 1.0, "shared": 1.0}]
