"""Agreement of clusterings, against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaikit.statistics.agreement import adjusted_rand_index, match_clusters


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 9), st.integers(1, 9))
def test_adjusted_rand_index_is_scikit_learns(seed: int, rows: int, ka: int, kb: int) -> None:
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, ka, rows), rng.integers(0, kb, rows)
    assert adjusted_rand_index(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


def test_adjusted_rand_index_ignores_names_and_takes_large_counts() -> None:
    labels = np.arange(3_000_000) % 7
    assert adjusted_rand_index(labels, (labels * 3 + 1) % 7) == 1.0
    assert adjusted_rand_index(np.zeros(5, int), np.zeros(5, int)) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 300))
def test_matching_overlaps_as_much_as_scipys(seed: int, k: int, rows: int) -> None:
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, k, rows), rng.integers(0, k, rows)
    overlap = np.zeros((k, k), np.int64)
    np.add.at(overlap, (a, b), 1)
    found = match_clusters(a, b, k)
    assert sorted(found) == list(range(k))
    best = overlap[linear_sum_assignment(overlap, maximize=True)].sum()
    assert overlap[np.arange(k), found].sum() == best


def test_matching_recovers_a_renaming() -> None:
    rng = np.random.default_rng(0)
    labels, names = rng.integers(0, 64, 5000), rng.permutation(64)
    assert np.array_equal(match_clusters(labels, names[labels], 64), names)
