"""Prototypes and R-squared against loops over every entry."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from edge_parts import sums_of

from xaikit.statistics.parts import whole_sums
from xaikit.statistics.sums import Predictions, r2_score

K = 4
SCORES = ["r2", "r2_mean", "r2_position", "r2_position_cluster"]


def summed(A, c, where, mean=None):
    """Sums of the logits, and of `mean` over each pair of clusters, from blocks of four images."""
    blocks = list(enumerate(np.array_split(np.arange(len(A)), -(-len(A) // 4))))
    found = sums_of(A, c, K, where, blocks, mean=mean, null=False)
    share = found.totals.value("share").transpose(0, 1) if where == "cluster" else None
    return whole_sums(found, torch.from_numpy(c)), share


def predictions(train, test, where):
    mean = torch.from_numpy(train[0]).float().double().mean(0)
    (one, share), (other, other_share) = (summed(*each, where, mean) for each in (train, test))
    return Predictions(one, other, where, share, other_share)


@pytest.mark.parametrize("seed", range(3))
def test_prototypes_and_counts_with_an_empty_cluster(seed):
    A, c = slow.random_case(seed)
    sums, pairs = (summed(A, c, where)[0] for where in ("token", "cluster"))
    np.testing.assert_allclose(sums.prototypes, slow.cell_means(A, c, K, "token"), rtol=1e-12)
    np.testing.assert_allclose(
        pairs.pair_prototypes, slow.cell_means(A, c, K, "cluster"), rtol=1e-12
    )
    assert sums.counts.tolist() == [len(slow.rows_of(c, k)) for k in range(K)]
    assert sums.pair_counts.tolist() == slow.support(c, K, "cluster").tolist()
    assert sums.counts[2] == 0
    assert not sums.prototypes[2].any()


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize("seed", range(3))
def test_r2_in_sample_and_held_out(where, seed):
    train, test = slow.random_case(seed), slow.random_case(seed + 50, B=5, empty=0)
    for scored in (train, test):
        found = predictions(train, scored, where).scores()
        expected = slow.all_r2(train, scored, K, where)
        assert found == {name: pytest.approx(expected[name], abs=1e-9) for name in SCORES}


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_mse_is_over_all_entries(where):
    A, c = slow.random_case(7)
    error = A - slow.predicted(slow.cell_means(A, c, K, where), c, where)
    assert predictions((A, c), (A, c), where).mse() == pytest.approx((error**2).mean(), rel=1e-9)


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize("value", [0.0, 0.1, -37.3])
def test_constant_logits_have_r2_one(where, value):
    A, c = np.full((6, 2, 5, 5), value, dtype=np.float32).astype(float), slow.random_case(0)[1]
    assert list(predictions((A, c), (A, c), where).scores().values()) == [1.0] * 4


def test_constant_logits_predicted_wrongly_have_r2_zero():
    A, c = slow.random_case(1)
    constant = np.full_like(A, 0.5)
    assert predictions((A, c), (constant, c), "token").scores()["r2"] == 0.0
    assert r2_score(squared_error=3.0, square=4.0, total=4.0, entries=4.0) == 0.0


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_a_large_common_logit_does_not_drown_the_fit(where):
    A, c = slow.random_case(3, shift=0.1)
    far = (A + 300.0).astype(np.float32).astype(float)
    found = predictions((far, c), (far, c), where).scores()
    expected = slow.all_r2((far, c), (far, c), K, where)
    assert found == {name: pytest.approx(expected[name], abs=1e-7) for name in SCORES}
