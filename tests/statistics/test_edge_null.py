"""The permutation null of all edges against every permutation, and against many of them."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from edge_parts import part_of

from xaikit.statistics.edge_null import EdgeNull
from xaikit.statistics.permutations import image_permutations
from xaikit.statistics.sampling import random_blocks
from xaikit.statistics.tails import NOT_TESTABLE, SAMPLED

K = 4


def null_of(A, c, where, draws=0, seed=0, **options):
    return part_of(A, c, K, where, draws=draws, seed=seed, **options).null


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("exact", [True, False])
def test_zscores_are_those_of_all_permutations(where, seed, exact):
    A, c = slow.random_case(seed, B=5, N=4)
    mean, variance = slow.permutation_moments(A, c, K, where)
    observed = slow.cell_means(A, c, K, where) * slow.support(c, K, where)[:, None, :]
    real = variance > 1e-9
    expected = np.where(real, (observed - mean) / np.sqrt(np.where(real, variance, 1.0)), 0.0)
    assert real[[0, 1, 3]].mean() >= 0.75
    np.testing.assert_allclose(
        null_of(A, c, where, exact=exact and where == "token").zscores, expected, atol=2e-4
    )


def test_contracts_formula_of_the_variance():
    A, c = slow.random_case(5, B=5, N=4)
    B, H, N, _ = A.shape
    _, variance = slow.permutation_moments(A, c, K, "token")
    a = A - A.mean(0)
    for k, h, j in np.ndindex(K, H, N):
        L = (c == k) - (c == k).mean(0)
        total = sum(
            (L[:, i] * L[:, i2]).sum() * (a[:, h, i, j] * a[:, h, i2, j]).sum()
            for i, i2 in np.ndindex(N, N)
        )
        assert total / (B - 1) == pytest.approx(variance[k, h, j], abs=1e-9)


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_standard_deviations_match_sampled_permutations(where):
    A, c = slow.random_case(11, B=24, N=6)
    orders = image_permutations(len(A), 2000, seed=3)
    maps = np.eye(K)[c]
    formula = "bik,bhij->khj" if where == "token" else "bik,bhij,bjl->khl"

    def plain(order):
        found = [maps[order], A] if where == "token" else [maps[order], A, maps[order]]
        return torch.from_numpy(np.einsum(formula, *found, optimize=True))

    own = plain(np.arange(len(A)))
    table = torch.stack([plain(order) for order in orders])
    zscores = null_of(A, c, where).zscores
    tested = zscores.abs() > 0.6
    deviation = ((own - table.mean(0)) / zscores)[tested]
    assert tested.sum() >= 10
    ratio = deviation / table.std(0)[tested]
    # Sampling leaves the mean uncertain too, which counts where z is small.
    assert ratio.median() == pytest.approx(1.0, abs=0.02)
    assert (ratio - 1).abs().max() < 0.1


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_a_cluster_at_the_same_tokens_in_every_image_cannot_be_tested(where):
    A, c = slow.random_case(2, B=8)
    c[:, 0] = 2
    null = null_of(A, c, where, draws=30)
    still = (2, slice(None), slice(None)) if where == "token" else (2, slice(None), 2)
    for method in ("moments", "sampled"):
        assert (null.zscores[still] == 0).all()
        assert (null.pvalues(method)[still] == 1).all()
        assert (null.pvalues(method) < 1).any()


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize("seed", [0, 6])
def test_sampled_null_re_estimates_prototypes_under_each_permutation(where, seed):
    A, c = slow.random_case(seed, B=7, N=4)
    null = null_of(A, c, where, draws=19, seed=seed)
    table = [slow.cell_means(A, c[order], K, where) for order in image_permutations(7, 19, seed)]
    observed = slow.cell_means(A, c, K, where)
    for draw, P in enumerate(table):
        for k in range(K):
            expected = slow.ablation_effect(P, c, k, where), slow.injection_effect(P, c, k, where)
            found = null.null_ablation[draw, k], null.null_injection[draw, k]
            assert [float(each) for each in found] == pytest.approx(expected, rel=1e-5)
    for k in range(K):
        assert float(null.ablation[k]) == pytest.approx(
            slow.ablation_effect(observed, c, k, where), rel=1e-6
        )
        assert float(null.injection[k]) == pytest.approx(
            slow.injection_effect(observed, c, k, where), rel=1e-6
        )


def test_sampled_pvalues_are_two_sided_about_the_permutation_mean():
    A, c = slow.random_case(8, B=6, N=4)
    found = null_of(A, c, "token", draws=49).pvalues("sampled")
    n = slow.support(c, K, "token")[:, None, :]
    mean = slow.permutation_moments(A, c, K, "token")[0] / np.maximum(n, 1)
    table = [slow.cell_means(A, c[order], K, "token") for order in image_permutations(6, 49, 0)]
    observed = slow.cell_means(A, c, K, "token")
    for at in np.ndindex(found.shape):
        far = [abs(P[at] - mean[at]) for P in table]
        expected = slow.pvalue(abs(observed[at] - mean[at]), far) if n[at[0], 0, at[2]] else 1.0
        assert float(found[at]) == expected


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_energy_is_the_squared_deviation_from_the_position_mean(where):
    A, c = slow.random_case(4)
    np.testing.assert_allclose(
        null_of(A, c, where).energy, slow.energy(A, c, K, where), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_null_of_several_blocks_is_exact_for_permutations_within_them(where):
    A, c = slow.random_case(12, B=8, N=4)
    n = slow.support(c, K, where)[:, None, :]
    blocks = random_blocks(8, 4, seed=0)
    assert sorted(np.concatenate(blocks)) == list(range(8))
    M = slow.position_mean(A)
    sums = slow.cell_means(A, c, K, where) * n
    mean, variance = np.zeros_like(sums), np.zeros_like(sums)
    for block in blocks:
        # The position part is the same under every permutation: only residuals vary.
        part_mean, part_variance = slow.permutation_moments(A[block] - M, c[block], K, where)
        mean, variance = mean + part_mean, variance + part_variance
    share = slow.cell_means(np.broadcast_to(M, A.shape), c, K, where) * n
    real = variance > 1e-9
    expected = np.where(real, (sums - share - mean) / np.sqrt(np.where(real, variance, 1)), 0.0)
    np.testing.assert_allclose(null_of(A, c, where, block=4).zscores, expected, atol=2e-4)


def test_every_logit_far_from_zero_changes_no_zscore():
    A, c = slow.random_case(13, B=10)
    near = null_of(A, c, "token").zscores
    far = null_of((A + 64.0).astype(np.float32).astype(float), c, "token").zscores
    torch.testing.assert_close(near, far, atol=5e-3, rtol=0)
    assert near.abs().max() > 1


def test_sampled_pvalues_are_of_edges_that_there_are_and_that_some_permutation_changes() -> None:
    none = torch.zeros(0)
    found = EdgeNull(
        zscores=torch.tensor([[[2.0, 0.0, 3.0]]]),
        energy=none,
        moment_pvalues=None,
        moment_methods=None,
        exceed=torch.tensor([[[1.0, 1.0, 0.0]]], dtype=torch.float64),
        draws=9,
        occupied=torch.tensor([[[True, True, False]]]),
        ablation=none,
        injection=none,
        null_ablation=none,
        null_injection=none,
    )
    assert found.pvalues("sampled").tolist() == [[[0.2, 1.0, 1.0]]]
    assert found.methods("sampled").tolist() == [[[SAMPLED, NOT_TESTABLE, NOT_TESTABLE]]]
