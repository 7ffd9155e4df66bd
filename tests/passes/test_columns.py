"""The few logits behind the tests of a circuit's edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_trace

from xaikit.artifacts.edges import Edge
from xaikit.passes import columns as module
from xaikit.passes.columns import Columns
from xaikit.passes.feed import StoredFeed, chunks

TOKENS = 5


def edge(head: int, dst: int | None) -> Edge:
    end = {"dst_token": dst} if dst is not None else {"dst_token": None, "dst_cluster": 1}
    return Edge(cluster_id=0, head=head, weight=0.0, support=1, **end)


def test_each_edge_has_the_column_of_its_own_head_and_of_the_chosen_images() -> None:
    logits = torch.randn(9, 3, TOKENS, TOKENS)
    trace = make_trace(logits)
    images = np.array([1, 4, 8])
    wanted = [(2, 3), (0, None), (2, 0), (1, 4), (2, 3)]
    found = Columns(wanted, images)
    StoredFeed(trace).visit(chunks(np.arange(9), 2), {(trace.layer, trace.next_layer): [found]})
    for head, dst in wanted:
        expected = logits[images][:, head] if dst is None else logits[images][:, head, :, dst]
        assert torch.equal(found.of(edge(head, dst)), expected)
    assert found.bytes_needed(TOKENS) == sum(
        found.of(edge(head, dst)).numel() * 4 for head, dst in set(wanted)
    )


def test_as_many_test_images_are_read_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [3, 1, 30, *range(40, 60)]
    ordered = sorted(images)
    few = [(0, 1)]
    assert module.tested_images(images, few, TOKENS, 0).tolist() == ordered
    monkeypatch.setattr(module, "TEST_IMAGES", 7)
    seven = module.tested_images(images, few, TOKENS, 0).tolist()
    assert seven == sorted(set(seven) & set(images))
    assert len(seven) == 7
    assert seven != ordered[:7]
    assert module.tested_images(images, few, TOKENS, 1).tolist() != seven
    # A column of one token takes 4 · N bytes an image, that of a cluster N of those.
    monkeypatch.setattr(module, "COLUMN_BYTES", 4 * TOKENS * 5)
    five = module.tested_images(images, [(0, 1), (0, 1)], TOKENS, 0).tolist()
    assert len(five) == 5
    assert set(five) < set(seven)
    assert len(module.tested_images(images, [(0, 1), (1, 1)], TOKENS, 0)) == 2
    monkeypatch.setattr(module, "COLUMN_BYTES", 4 * TOKENS * TOKENS * 6)
    assert len(module.tested_images(images, [(0, None)], TOKENS, 0)) == 6
    assert len(module.tested_images(images, [(0, None), (1, None)], TOKENS, 0)) == 3
