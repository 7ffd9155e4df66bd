"""Every ranking's score against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.errors import UsageError
from xaikit.rankings import ranking, score_from_fit
from xaikit.stages.fit import fit

K = 4
HELDOUT = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module", params=["token", "cluster"])
def case(request):
    A, c = slow.random_case(0, B=10, N=4)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, HELDOUT)
    made = fit(trace, features, destination=request.param, num_permutations=3)
    return made, A[5:], c[5:], request.param


def test_weight(case):
    made, A, c, where = case
    expected = np.abs(slow.cell_means(A, c, K, where))
    np.testing.assert_allclose(score_from_fit("weight", made), expected, rtol=1e-5)


def test_contrast(case):
    made, A, c, where = case
    expected = np.abs(slow.contrast(A, c, K, where))
    np.testing.assert_allclose(score_from_fit("contrast", made), expected, atol=1e-5)


def test_energy(case):
    made, A, c, where = case
    expected = slow.energy(A, c, K, where)
    np.testing.assert_allclose(score_from_fit("energy", made), expected, rtol=1e-4, atol=1e-4)


def test_zscore_of_the_images_that_circuits_are_chosen_on(case):
    made, A, c, where = case
    mean, variance = slow.permutation_moments(A, c, K, where)
    sums = slow.cell_means(A, c, K, where) * slow.support(c, K, where)[:, None, :]
    real = variance > 1e-9
    expected = np.where(real, np.abs(sums - mean) / np.sqrt(np.where(real, variance, 1.0)), 0.0)
    np.testing.assert_allclose(score_from_fit("zscore", made), expected, atol=2e-4)


def test_unknown_key_names_those_there_are():
    with pytest.raises(UsageError, match=r"`rank=size`: expected one of .*weight"):
        ranking("size")
