"""Which tokens clusters are learnt on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaikit.statistics.sampling import random_blocks, sample_plan


@given(
    images=st.integers(1, 60),
    tokens=st.integers(1, 30),
    count=st.integers(0, 500),
    seed=st.integers(0, 5),
)
def test_tokens_are_distinct_in_order_and_as_many_as_asked_for(images, tokens, count, seed):
    own = list(range(100, 100 + 3 * images, 3))
    plan = sample_plan(own, tokens, count, seed)
    chosen = [image for image, _ in plan]
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(own)
    total = images * tokens
    assert sum(len(rows) for _, rows in plan) == (min(count, total) or total)
    for _, rows in plan:
        assert np.array_equal(rows, np.unique(rows))
        assert len(rows) == 0 or (rows.min() >= 0 and rows.max() < tokens)


def test_a_sample_of_many_images_reads_few(rng):
    plan = sample_plan(range(10_000), 50, 1000, 0)
    assert len(plan) == 40
    assert len(sample_plan(range(30), 50, 1000, 0)) == 30


def test_every_token_is_as_likely(rng):
    seen = np.zeros(20)
    for seed in range(400):
        for image, rows in sample_plan(range(10), 2, 4, seed):
            seen[2 * image + rows] += 1
    assert seen.sum() == pytest.approx(1600)
    assert seen.min() > 40
    assert seen.max() < 130


def test_blocks_are_random_of_nearly_equal_size_and_follow_from_the_seed():
    blocks = random_blocks(23, 8, 0)
    assert [len(each) for each in blocks] == [8, 8, 7]
    assert sorted(np.concatenate(blocks)) == list(range(23))
    assert all(np.array_equal(each, np.sort(each)) for each in blocks)
    assert not np.array_equal(blocks[0], np.arange(8))
    again, other = random_blocks(23, 8, 0), random_blocks(23, 8, 1)
    assert all(np.array_equal(a, b) for a, b in zip(blocks, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(blocks, other, strict=True))
    assert [len(each) for each in random_blocks(3, 8, 0)] == [3]
