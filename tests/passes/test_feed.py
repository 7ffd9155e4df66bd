"""A stored trace shown block by block: what is there, to whom it is wanted, in one order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from conftest import make_trace

from xaikit.artifacts.trace import Trace
from xaikit.passes.feed import ATTENTION, GATES, NORMS, StoredFeed, Visitor, chunks

BAD = [0, 1, 5, 8]
"""Candidates of ten that could not be used."""


def made() -> Trace:
    """A trace of the six others, whose numbers say which candidate they are of."""
    used = [i for i in range(10) if i not in BAD]
    trace = make_trace(torch.tensor(used).float()[:, None, None, None].expand(6, 2, 3, 3).clone())
    info = replace(
        trace.info, skipped=[[f"bad {i}", "torn"] for i in BAD], skipped_at=BAD, skipped_groups=None
    )
    shard = trace._shards[0].tensors
    assert shard is not None
    shard["residual_norms_l1"] = torch.tensor(used).float()[:, None].expand(6, 3).clone()
    return Trace.from_tensors(info, shard)


class Seen(Visitor):
    """Whatever it is shown of what it asked for."""

    def __init__(self, said: list[Any], *needs: str) -> None:
        self.said, self.needs = said, frozenset(needs)

    def gates(self, block: Any, gates: torch.Tensor) -> None:
        """How many images' gates."""
        self.said.append(("gates", block.images.tolist(), len(gates)))

    def norms(self, block: Any, norms: torch.Tensor) -> None:
        """Whose norms."""
        self.said.append(("norms", block.images.tolist(), norms[:, 0].tolist()))

    def attention(self, block: Any, attention: Any) -> None:
        """Whose logits, head by head."""
        logits = attention.logits(slice(1, 2))
        assert logits.shape == (1, len(block), 3, 3)
        self.said.append(("attention", block.images.tolist(), logits[0, :, 0, 0].tolist()))


def test_each_block_has_the_images_that_are_there_gates_first_and_attention_last() -> None:
    said: list[Any] = []
    told: list[Any] = []
    trace = made()
    pair = (trace.layer, trace.next_layer)
    visitors = [Seen(said, ATTENTION, GATES), Seen(said, NORMS), Seen(said, ATTENTION)]
    blocks = chunks(np.arange(10), 2)
    StoredFeed(trace).visit(
        blocks, {pair: visitors}, what="looked at", progress=lambda *each: told.append(each)
    )
    expected: list[Any] = []
    for images in ([2, 3], [4], [6, 7], [9]):
        values = [float(i) for i in images]
        expected.append(("gates", images, len(images)))
        expected.append(("norms", images, values))
        expected += [("attention", images, values)] * 2
    assert said == expected
    # A block without a usable image is none, and counts as done.
    assert told == [("looked at", done, 10) for done in (2, 4, 6, 8, 10)]


def test_images_that_no_trace_is_of_are_passed_over() -> None:
    said: list[Any] = []
    trace = made()
    blocks = chunks(np.array([3, 12, 40]), 2)
    StoredFeed(trace).visit(blocks, {(trace.layer, trace.next_layer): [Seen(said, NORMS)]})
    assert said == [("norms", [3], [3.0])]


def test_chunks_are_blocks_of_their_own_groups() -> None:
    blocks = chunks(np.array([4, 7, 9]), 2)
    assert [block.images.tolist() for block in blocks] == [[4, 7], [9]]
    assert [(block.number, block.group, block.drawn) for block in blocks] == [
        (0, 0, False),
        (1, 1, False),
    ]
    assert {block.part for block in blocks} == {"discovery"}
    assert chunks(np.zeros(0, dtype=int), 2) == []
