"""Edges, the entries they cover, and orders on the axis of covered entries."""

from __future__ import annotations

import pytest
import torch
from planted_run import planted_run

from xaikit.interventions import (
    SHARES,
    cover_share,
    edge_table,
    entry_counts,
    order_edges,
    order_masks,
    random_order,
    spread,
)

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
        marked = edge_table([(edge[0], 1, edge[1])], table.shape)
        covered = int(spread(marked, labels, destination).sum())
        assert covered == int(counts[edge])
        assert cover_share(marked, counts) == pytest.approx(covered / (5 * 2 * 36))


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_shares_of_entries_are_what_they_say_and_nest(destination: str) -> None:
    live = planted_run(destination).live()
    order = order_edges(
        "contrast", live.fit.contrast.abs(), live.counts, destination, live.fit.support
    )
    for other in (order, random_order(live.counts, live.shape[1], destination, [3])):
        covered, entries, before = dict.fromkeys(SHARES, 0), 0, None
        for batch in live.batches():
            for share, mask in zip(SHARES, order_masks(batch, other, SHARES), strict=True):
                covered[share] += int(mask.sum())
                assert before is None or not bool((before & ~mask).any())
                before = mask
            assert bool(before.all())
            entries += before.numel()
            before = None
        for share, count in covered.items():
            # The boundary edge is covered in part, by chance of the row.
            assert count / entries == pytest.approx(share, rel=0.05, abs=2e-4)


def test_whole_edges_lie_inside_their_threshold() -> None:
    counts = torch.tensor([[2.0, 2.0], [6.0, 6.0]]).double()
    scores = torch.tensor([[[0.5, 3.0]], [[2.0, 1.0]]])
    order = order_edges("made up", scores, counts, "token")
    assert order.positions.tolist() == [[[3.0, 0.0]], [[1.0, 2.0]]]
    assert order.threshold(2 / 16) == pytest.approx(1.0)
    assert order.threshold(5 / 16) == pytest.approx(1.5)
    assert (order.edges(2 / 16), order.edges(5 / 16), order.edges(1.0)) == (1, 2, 4)
    assert order.threshold(1.0) == 4.0


def test_edges_without_support_come_last_and_ties_are_in_index_order() -> None:
    counts = torch.ones(2, 2).double()
    support = torch.tensor([[1, 0], [1, 1]])
    scores = torch.tensor([[[1.0, 9.0]], [[1.0, 1.0]]])
    order = order_edges("made up", scores, counts, "token", support)
    assert order.positions.tolist() == [[[0.0, 3.0]], [[1.0, 2.0]]]


def test_edges_that_cover_nothing_do_not_move_the_axis() -> None:
    counts = torch.tensor([[0.0], [4.0]]).double()
    order = order_edges("made up", torch.tensor([[[2.0]], [[1.0]]]), counts, "token")
    assert order.threshold(0.5) == pytest.approx(1.5)
    assert order.threshold(1.0) == 2.0
