"""The permutation test of one edge against loops with the same permutations."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch

from xaikit.statistics.edges import alignment_gain, edge_test
from xaikit.statistics.permutations import image_permutations

K, H = 4, 0


def edge_entries(A, c, k, d, where):
    labels, logits = torch.from_numpy(c), torch.from_numpy(A[:, H])
    if where == "token":
        return logits[:, :, d], labels == k, None
    return logits, labels == k, labels == d


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize(("k", "d"), [(0, 1), (3, 3), (1, 0)])
def test_edge_is_re_estimated_under_each_permutation(where, k, d):
    A, c = slow.random_case(3, B=7)
    orders = image_permutations(7, 25, seed=1)
    entries, sources, ends = edge_entries(A, c, k, d, where)
    found = edge_test(entries, sources, orders, ends)
    for draw, order in enumerate([np.arange(7), *orders]):
        P = slow.cell_means(A, c[order], K, where)[k, H, d]
        gain = slow.alignment_gain(A, c[order], k, H, d, P, where)
        weights = (found.weight, *found.null_weights.tolist())
        gains = (found.gain, *found.null_gains.tolist())
        assert (weights[draw], gains[draw]) == pytest.approx((P, gain), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_gain_of_a_given_prototype(where):
    A, c = slow.random_case(5)
    entries, sources, ends = edge_entries(A, c, 1, 3, where)
    members = sources if ends is None else sources.unsqueeze(2) & ends.unsqueeze(1)
    expected = slow.alignment_gain(A, c, 1, H, 3, 0.7, where)
    assert alignment_gain(entries, members, 0.7) == pytest.approx(expected, rel=1e-12)


def test_empty_cluster_has_no_effect():
    A, c = slow.random_case(6)
    entries, sources, _ = edge_entries(A, c, 2, 0, "token")
    found = edge_test(entries, sources, image_permutations(6, 5, 0))
    assert (found.weight, found.gain) == (0.0, 0.0)
    assert alignment_gain(entries, sources, 1.0) == 0.0


def test_permutations_are_of_whole_images_and_do_not_depend_on_their_number():
    few, many = image_permutations(9, 5, seed=2), image_permutations(9, 50, seed=2)
    assert (few == many[:5]).all()
    assert (np.sort(many, axis=1) == np.arange(9)).all()
    assert len({tuple(order) for order in many}) == 50
    assert (few != image_permutations(9, 5, seed=3)).any()
