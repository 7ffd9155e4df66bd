"""Closed-form effects against predicted logits that are built, edited and compared."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch

from xaikit.statistics.effects import ablation_effects, injection_effects

K = 4


def effects(A, c, where):
    P = torch.from_numpy(slow.cell_means(A, c, K, where))
    counts = torch.from_numpy(np.bincount(c.ravel(), minlength=K))
    pairs = torch.from_numpy(slow.support(c, K, "cluster")) if where == "cluster" else None
    return ablation_effects(P, pairs), injection_effects(P, counts, pairs)


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize("seed", range(3))
def test_effects_are_mean_changes_of_the_predicted_logits(where, seed):
    A, c = slow.random_case(seed)
    P = slow.cell_means(A, c, K, where)
    ablation, injection = effects(A, c, where)
    for k in range(K):
        assert float(ablation[k]) == pytest.approx(slow.ablation_effect(P, c, k, where), rel=1e-9)
        assert float(injection[k]) == pytest.approx(slow.injection_effect(P, c, k, where), rel=1e-9)


def test_token_effects_are_the_contracts_closed_forms():
    A, c = slow.random_case(9)
    P = slow.cell_means(A, c, K, "token")
    n = np.bincount(c.ravel(), minlength=K)
    ablation, injection = effects(A, c, "token")
    for k in range(K):
        others = [k2 for k2 in range(K) if k2 != k]
        moved = sum(n[k2] * np.abs(P[k2] - P[k]).mean() for k2 in others)
        assert float(ablation[k]) == pytest.approx(np.abs(P[k]).mean(), rel=1e-12)
        assert float(injection[k]) == pytest.approx(moved / sum(n[others]), rel=1e-12)


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_a_cluster_that_holds_every_row_has_nothing_to_inject_into(where):
    A, c = slow.random_case(0)
    assert float(effects(A, np.ones_like(c), where)[1][1]) == 0.0


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_effects_of_many_draws_are_those_of_each(where):
    c = slow.random_case(4)[1]
    counts = torch.from_numpy(np.bincount(c.ravel(), minlength=K))
    pairs = torch.from_numpy(slow.support(c, K, "cluster")) if where == "cluster" else None
    draws = torch.randn(3, K, 2, K if pairs is not None else 5, dtype=torch.float64)
    together = injection_effects(draws, counts, pairs)
    assert torch.equal(together, torch.stack([injection_effects(d, counts, pairs) for d in draws]))
