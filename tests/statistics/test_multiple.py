"""P-values and q-values against their definitions."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slow_definitions as slow
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaikit.errors import UsageError
from xaikit.statistics.multiple import (
    benjamini_hochberg,
    discovery_qvalues,
    joint_discovery_qvalues,
    number,
    permutation_pvalues,
    two_sided_normal,
)

families = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=25)


def test_a_test_without_a_pvalue_is_none_of_the_family():
    nan = math.nan
    found = benjamini_hochberg(torch.tensor([0.01, nan, 0.04, nan, nan, 0.5])).tolist()
    alone = benjamini_hochberg(torch.tensor([0.01, 0.04, 0.5])).tolist()
    assert [found[at] for at in (0, 2, 5)] == alone
    assert all(math.isnan(found[at]) for at in (1, 3, 4))


@given(families)
def test_qvalues_are_the_smallest_rate_that_rejects(pvalues):
    found = benjamini_hochberg(torch.tensor(pvalues, dtype=torch.float64))
    np.testing.assert_allclose(found, slow.benjamini_hochberg(pvalues), rtol=1e-12)


@given(families, st.randoms())
def test_qvalues_lie_above_p_in_its_order_whatever_the_order_of_tests(pvalues, random):
    p = torch.tensor(pvalues, dtype=torch.float64)
    q = benjamini_hochberg(p)
    assert (q >= p).all()
    assert (q <= 1).all()
    assert (q[torch.argsort(p)].diff() >= 0).all()
    order = list(range(len(pvalues)))
    random.shuffle(order)
    assert torch.equal(benjamini_hochberg(p[order]), q[order])


def test_qvalues_of_known_family_keep_its_shape():
    p = torch.tensor([[0.01, 0.04], [0.03, 0.5]])
    expected = torch.tensor([[0.04, 0.16 / 3], [0.16 / 3, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(benjamini_hochberg(p), expected)
    assert benjamini_hochberg(torch.zeros(0, 3)).shape == (0, 3)


def test_two_sided_normal_matches_known_quantiles():
    z = torch.tensor([0.0, 1.959963984540054, -2.5758293035489004, 8.0], dtype=torch.float64)
    expected = [1.0, 0.05, 0.01, math.erfc(8 / math.sqrt(2))]
    assert two_sided_normal(z).tolist() == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 5))
def test_permutation_pvalue_counts_ties_against_the_observed(null, observed):
    table = torch.tensor(null, dtype=torch.float64).unsqueeze(1)
    found = permutation_pvalues(torch.tensor([float(observed)]), table)
    assert found.item() == (1 + sum(each >= observed for each in null)) / (1 + len(null))


def test_no_draws_give_p_one_and_rounding_is_a_tie():
    assert permutation_pvalues(torch.ones(2), torch.empty(0, 2)).tolist() == [1.0, 1.0]
    shy = torch.full((9, 1), 1.0 - 1e-12, dtype=torch.float64)
    assert permutation_pvalues(torch.ones(1), shy).item() == 1.0


def made_fit(seed, heldout, method="kmeans"):
    rng = np.random.default_rng(seed)
    tables = torch.from_numpy(rng.random((2, 3, 2, 5)))
    return SimpleNamespace(
        method=method,
        heldout_r2={"r2": 0.1} if heldout else {},
        discovery_pvalues=tables[0],
        edge_pvalues=tables[1],
        edge_qvalues=benjamini_hochberg(tables[1]),
        # Of another tail than the p-values: they decide nothing.
        discovery_zscores=torch.full((3, 2, 5), 9.0),
    )


@pytest.mark.parametrize("heldout", [False, True])
def test_edges_are_chosen_by_tests_of_the_images_they_are_chosen_on(heldout):
    fits = [made_fit(seed, heldout) for seed in range(2)]
    own = [each.discovery_pvalues if heldout else each.edge_pvalues for each in fits]
    assert torch.equal(discovery_qvalues(fits[0]), benjamini_hochberg(own[0]))
    joint = torch.stack(joint_discovery_qvalues(fits))
    assert torch.equal(joint, benjamini_hochberg(torch.stack(own)))
    with pytest.raises(UsageError, match="guided clusters have seen"):
        discovery_qvalues(made_fit(0, heldout, "guided"))


def test_scores_far_out_have_a_pvalue_whatever_their_format() -> None:
    found = two_sided_normal(torch.tensor([-20.0, 20.0, 0.0], dtype=torch.float32))
    assert 0 < float(found[0]) == float(found[1]) < 1e-80
    assert float(found[2]) == 1.0


def test_rounding_makes_draws_equal_on_either_side_of_zero() -> None:
    for observed in (1.0, -1.0):
        null = torch.tensor([[observed - 1e-12], [observed - 1e-3], [observed + 1.0]])
        found = permutation_pvalues(torch.tensor([observed]), null.double())
        assert found.tolist() == [3 / 4]


def test_a_number_that_is_not_given_is_none() -> None:
    assert number(float("nan")) is None
    assert number(torch.tensor(0.5)) == 0.5


def test_one_guided_layer_is_enough_for_discovery_tests_to_be_refused() -> None:
    fits: Any = [SimpleNamespace(method=method) for method in ("kmeans", "guided")]
    with pytest.raises(UsageError, match="guided clusters have seen their attention"):
        joint_discovery_qvalues(fits)
    with pytest.raises(UsageError, match="guided"):
        discovery_qvalues(fits[1])
