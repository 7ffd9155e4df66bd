"""Parts, blocks and processes: who reads which image, and where permutations are sampled."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest

from xaikit.distributed import World
from xaikit.passes.plan import make_plan, own_blocks, parts_of, split_candidates
from xaikit.statistics.edge_sums import NULL_BLOCK, NULL_IMAGES

PARTS = {"discovery": list(range(0, 900, 2)), "heldout": list(range(1, 700, 2))}


def test_every_candidate_is_in_one_block_of_its_part() -> None:
    plan = make_plan(PARTS, 0, 0)
    assert plan.candidates == 450 + 350
    assert plan.block_size == NULL_BLOCK
    for part, images in PARTS.items():
        blocks = plan.of(part)
        assert sorted(np.concatenate([block.images for block in blocks]).tolist()) == images
        assert [block.number for block in blocks] == list(range(len(blocks)))
        assert all((np.diff(block.images) > 0).all() for block in blocks)
    other = make_plan(PARTS, 0, 1)
    assert plan.blocks[0].images.tolist() != other.blocks[0].images.tolist()


@pytest.mark.parametrize("size", [0, 8, 50, 500])
def test_permutations_are_sampled_on_at_most_128_images_that_are_tested(size: int) -> None:
    plan = make_plan(PARTS, size, 0)
    assert {block.part for block in plan.drawn} == {plan.tested} == {"heldout"}
    drawn = sum(len(block.images) for block in plan.drawn)
    # One block at least, however large it is.
    assert drawn <= NULL_IMAGES or len(plan.drawn) == 1
    assert [block.number for block in plan.drawn] == list(range(len(plan.drawn)))
    if size in (0, 8):
        assert drawn > NULL_IMAGES - plan.block_size
    # What is drawn is one group: one process has all of it.
    assert {block.group for block in plan.drawn} == {0}
    whole = make_plan({"discovery": PARTS["discovery"]}, size, 0)
    assert {block.part for block in whole.drawn} == {"discovery"}


def test_a_single_image_is_not_permuted() -> None:
    assert make_plan({"discovery": [0, 1], "heldout": [2]}, 0, 0).drawn == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_block_is_read_by_one_process_and_groups_stay_together(size: int) -> None:
    plan = make_plan(PARTS, 8, 0)
    shares = [own_blocks(plan.blocks, World(rank, size)) for rank in range(size)]
    read = [(block.part, block.number) for share in shares for block in share]
    assert sorted(read) == sorted((block.part, block.number) for block in plan.blocks)
    for rank, share in enumerate(shares):
        assert share
        # The parts take turns apart: the first process does not begin both.
        firsts = {block.part for block in share if block.group == 0}
        own = {(rank - at) % size == 0 and part for at, part in enumerate(PARTS)} - {False}
        assert firsts == own
    owners: dict[tuple[str, int], set[int]] = {}
    for rank, share in enumerate(shares):
        for block in share:
            owners.setdefault((block.part, block.group), set()).add(rank)
    assert all(len(each) == 1 for each in owners.values())


def test_parts_are_split_by_id_group_share_and_seed() -> None:
    ids, groups = [f"{i:03d}" for i in range(60)], ["a", "b", "c"] * 20
    found = split_candidates(ids, groups, 0.25, 0)
    assert list(found) == ["discovery", "heldout"]
    assert [sum(i % 3 == g for i in found["heldout"]) for g in range(3)] == [5, 5, 5]
    assert split_candidates(ids, groups, 0.25, 1) != found
    assert split_candidates(ids, None, 0.0, 0)["heldout"] == []


def test_an_image_that_cannot_be_used_is_a_candidate_of_the_part_it_was_drawn_for() -> None:
    info: Any = Some(candidate_positions=lambda: np.array([0, 2, 3, 5]), skipped_at=[1, 4])
    found = parts_of(info, discovery=[2, 0], heldout=[3, 1], lost=[4])
    assert found == {"discovery": [0, 1, 3], "heldout": [2, 4, 5]}
