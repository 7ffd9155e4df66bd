"""Weighted sums are fits of the resampled images; agreement of circuits."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch

from xaikit.statistics.stability import (
    WEIGHTED,
    bootstrap_weights,
    circuit_agreement,
    jaccard,
    top_edges,
    weighted_sums,
)

K = 4


def resampled(A, c, weights):
    order = np.repeat(np.arange(len(A)), weights.astype(int))
    return A[order], c[order]


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_scores_are_those_of_the_resampled_images(where):
    A, c = slow.random_case(1, B=7)
    weights = bootstrap_weights(7, 3, seed=2)
    M = torch.from_numpy(slow.position_mean(A)).float()

    def chunks():
        for part in (slice(0, 4), slice(4, 7)):
            yield torch.from_numpy(c[part]), torch.from_numpy(A[part]).float()

    found = weighted_sums(chunks(), weights, M, K, where)
    for at in range(3):
        own, labels = resampled(A, c, weights[at].numpy())
        expected = {
            "weight": np.abs(slow.cell_means(own, labels, K, where)),
            "contrast": np.abs(slow.contrast(own, labels, K, where)),
            # About the position mean of all images, not of the resample.
            "energy": slow.cell_means((own - slow.position_mean(A)) ** 2, labels, K, where)
            * slow.support(labels, K, where)[:, None, :],
        }
        for rank in WEIGHTED:
            np.testing.assert_allclose(found.scores(rank, at), expected[rank], atol=1e-4)
        support = np.broadcast_to(
            slow.support(labels, K, where)[:, None, :] > 0, found.sums[0].shape
        )
        assert np.array_equal(found.support(at).numpy(), support)


def test_bootstrap_draws_as_many_images_as_there_are():
    weights = bootstrap_weights(50, 400, seed=0)
    assert (weights.sum(1) == 50).all()
    # A share of (1 - 1/50)^50 of the images is left out.
    assert float((weights == 0).float().mean()) == pytest.approx(0.364, abs=0.01)
    assert torch.equal(weights[:5], bootstrap_weights(50, 5, seed=0))
    assert not torch.equal(weights[:5], bootstrap_weights(50, 5, seed=1))


def test_top_edges_are_candidates_in_order_with_ties_by_index():
    scores = torch.tensor([[[3.0, 5.0], [5.0, 1.0]], [[9.0, 5.0], [0.0, 2.0]]])
    candidates = torch.ones_like(scores, dtype=torch.bool)
    candidates[1, 0, 0] = False
    assert top_edges(scores, candidates, 4).tolist() == [1, 2, 5, 0]


def test_agreement_of_circuits():
    reference = torch.tensor([1, 2, 3, 4])
    circuits = [torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 5, 6])]
    found = circuit_agreement(reference, circuits, candidates=40)
    assert found.survival.tolist() == [1.0, 1.0, 0.5, 0.5]
    assert found.jaccard == pytest.approx((1 + 1 / 3) / 2)
    assert found.jaccard_sd == pytest.approx(2 / 3 / 2**0.5)
    assert found.jaccard_pairwise == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    pairs = [[torch.from_numpy(rng.permutation(40)[:4]) for _ in range(2)] for _ in range(3000)]
    by_chance = np.mean([jaccard(one, other) for one, other in pairs])
    assert found.jaccard_chance == pytest.approx(by_chance, abs=0.01)
    assert jaccard(reference[:0], reference[:0]) == 1.0
