"""What each patch edits, entry by entry."""

from __future__ import annotations

import torch
from planted_run import planted_run

from xaikit.interventions import (
    EdgeSet,
    ablation_patch,
    edge_set,
    edges_patch,
    full_patch,
    order_edges,
    order_patch,
    sets_patch,
)


def masks(live, patch) -> list[torch.Tensor]:
    """Entries that each edit changes, found from logits that the ablation cannot leave alone."""
    batch = next(iter(live.batches()))
    part, found = batch.sites[0], []
    own = torch.full(part.entries, 1e3)
    for edits in patch.edits(batch):
        edit = edits.get(part.layer)
        found.append(torch.zeros_like(own).bool() if edit is None else edit(None, own) != own)
    assert len(found) == patch.size
    return found


def test_each_patch_edits_its_entries_and_no_others() -> None:
    run = planted_run("cluster", images=16)
    live = run.live(run.features.heldout[:3])
    labels = live.sites[0].labels
    rows = (labels == 2)[:, None, :, None]
    goals = (labels == 4)[:, None, None, :]
    (edge,) = masks(live, edges_patch([(0, 2, 1, 4)], live.shapes))
    expected = torch.zeros_like(edge)
    expected[:, 1:2] = rows & goals
    assert torch.equal(edge, expected)
    (kept,) = masks(live, sets_patch([edge_set([(0, 2, 1, 4)], live.shapes)], keep=True))
    assert torch.equal(kept, ~expected)
    (node,) = masks(live, ablation_patch([(0, 2)], live.shapes))
    assert torch.equal(node, rows.expand_as(node))
    (everything,) = masks(live, full_patch(live.shapes))
    assert bool(everything.all())


def test_removing_and_keeping_a_share_are_opposites() -> None:
    run = planted_run("cluster", images=16)
    live = run.live(run.features.heldout[:3])
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts)
    shares = [0.05, 0.3]
    removed = masks(live, order_patch(order, shares))
    kept = masks(live, order_patch(order, shares, "keep"))
    for one, other, share in zip(removed, kept, shares, strict=True):
        assert torch.equal(one, ~other)
        assert abs(float(one.double().mean()) - share) < 0.02


def test_what_touches_nothing_edits_nothing() -> None:
    run = planted_run("cluster", images=16)
    live = run.live(run.features.heldout[:3])
    empty = edge_set([], live.shapes)
    whole = EdgeSet(tables=tuple(~table for table in empty.tables))
    batch = next(iter(live.batches()))
    assert batch.ablation(empty) == {}
    assert batch.ablation(whole, keep=True) == {}
    assert set(batch.ablation(whole)) == {run.fit.next_layer}
