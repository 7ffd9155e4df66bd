from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaikit.errors import UsageError
from xaikit.images.split import stratified_split

seeds = st.integers(0, 2**32)
shares = st.floats(0.01, 0.99)
group_lists = st.lists(st.sampled_from("abcdef"), max_size=60)


def names(count):
    return [f"image{i}" for i in range(count)]


@given(group_lists, shares, seeds, st.booleans())
def test_a_partition_of_the_right_size_and_proportions(groups, holdout, seed, grouped):
    total = len(groups)
    discovery, heldout = stratified_split(names(total), groups if grouped else None, holdout, seed)
    assert sorted(discovery + heldout) == list(range(total))
    assert discovery == sorted(discovery)
    assert heldout == sorted(heldout)
    assert all(type(index) is int for index in discovery + heldout)
    if total < 2:
        assert heldout == []
        return
    assert len(heldout) == min(max(round(holdout * total), 1), total - 1)
    if grouped:
        held = Counter(groups[i] for i in heldout)
        for group, size in Counter(groups).items():
            assert abs(held[group] - Fraction(len(heldout) * size, total)) < 1


@given(group_lists, shares, seeds, st.randoms())
def test_ids_decide_not_their_order(groups, holdout, seed, random):
    ids = names(len(groups))
    order = list(range(len(groups)))
    random.shuffle(order)
    _, heldout = stratified_split(ids, groups, holdout, seed)
    _, shuffled = stratified_split(
        [ids[i] for i in order], [groups[i] for i in order], holdout, seed
    )
    assert {ids[i] for i in heldout} == {ids[order[i]] for i in shuffled}


def test_seeds_matter_and_repeat():
    ids = names(50)
    first = stratified_split(ids, None, 0.3, 0)
    assert first == stratified_split(ids, None, 0.3, 0)
    assert first != stratified_split(ids, None, 0.3, 1)


def test_every_image_is_held_out_equally_often():
    # A pair and two single images, half of four held out: everyone's share is a half.
    held = np.zeros(4)
    for seed in range(400):
        held[stratified_split(names(4), ["a", "a", "b", "c"], 0.5, seed)[1]] += 1
    assert (np.abs(held / 400 - 0.5) < 0.1).all()


def test_equal_remainders_are_equal_whatever_they_are_a_share_of():
    """60 of groups of 52, 13 and 39 are 30, 7½ and 22½, which no 60 / 104 times a size says."""
    groups = ["a"] * 52 + ["b"] * 13 + ["c"] * 39
    held = Counter()
    for seed in range(40):
        own = Counter(groups[i] for i in stratified_split(names(104), groups, 60 / 104, seed)[1])
        held[own["a"], own["b"], own["c"]] += 1
    assert set(held) == {(30, 8, 22), (30, 7, 23)}
    assert min(held.values()) > 8


def test_edges():
    assert stratified_split(names(3), None, 0, 0) == ([0, 1, 2], [])
    assert stratified_split([], None, 0.5, 0) == ([], [])
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match="`holdout=`"):
            stratified_split(names(3), None, wrong, 0)
