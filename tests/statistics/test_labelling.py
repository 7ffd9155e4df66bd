"""The fast labels against those of `assign`, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xaikit.statistics.kmeans import assign
from xaikit.statistics.labelling import Labeller


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-3, 0.5])
def test_labels_are_those_of_assign_however_close_the_centroids(rng, spread):
    width, clusters = 300, 9
    base = rng.random((1, width))
    centroids = base + spread * (rng.random((clusters, width)) - base)
    centroids = centroids.astype(np.float32)
    gates = rng.random((700, width)) < base
    counts = np.arange(clusters)
    expected = assign(gates, centroids, counts)
    labeller = Labeller(centroids, counts)
    found = labeller(torch.from_numpy(gates).view(7, 100, width))
    assert found.shape == (7, 100)
    assert np.array_equal(found.reshape(-1).numpy(), expected)
    assert 0 not in expected
    by_one = torch.cat([labeller(row[None]) for row in torch.from_numpy(gates[:20])])
    assert np.array_equal(by_one.numpy(), expected[:20])


def test_one_cluster_takes_everything(rng):
    centroids = rng.random((3, 8)).astype(np.float32)
    found = Labeller(centroids, np.array([0, 5, 0]))(torch.ones(4, 8, dtype=torch.bool))
    assert found.tolist() == [1, 1, 1, 1]
