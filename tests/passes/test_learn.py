"""Clusters as they are learnt: of a seeded sample, with prefix tokens on clusters of their own."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
import torch

from xaikit.distributed import World
from xaikit.errors import XaikitError
from xaikit.passes import learn as module
from xaikit.passes.learn import Clusters, SamplePlan, _clustered, agreed, prefix_means
from xaikit.progress import silent
from xaikit.statistics.prefix import prefix_clusters

SHARED = prefix_clusters(5, ("class token", "register 1", "register 2"))
FFN = 12


def gates_of(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gates of three prefix tokens and four patches of each image, and which token each is of."""
    gates = np.random.default_rng(seed).integers(0, 2, (images, 7, FFN)).astype(np.uint8)
    return gates.reshape(-1, FFN), np.tile(np.arange(7), images)


def test_kinds_of_prefix_tokens_have_their_mean_gates_and_all_their_tokens() -> None:
    gates, _ = gates_of(6)
    first = torch.from_numpy(gates).reshape(6, 7, FFN)[:, :3]
    means, counts = prefix_means(SHARED, first)
    assert counts.tolist() == [6, 12]
    expected = torch.stack([first[:, 0].double().mean(0), first[:, 1:].double().mean((0, 1))])
    torch.testing.assert_close(means.double(), expected, rtol=1e-6, atol=0)


def test_patches_alone_are_clustered_with_the_seed_and_the_clusters_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates, tokens = gates_of(6)
    given: list[Any] = []

    def kmeans(rows: np.ndarray, clusters: int, *, seed: int, progress: Any) -> Any:
        given.append((rows, clusters, seed))
        centroids = np.zeros((clusters, FFN), np.float32)
        return Some(centroids=centroids, counts=np.arange(clusters), inertia=2.5, distinct_points=9)

    monkeypatch.setattr(module, "kmeans", kmeans)
    found = _clustered(gates, tokens, SHARED, 7, silent)
    ((rows, clusters, seed),) = given
    assert np.array_equal(rows, gates.reshape(6, 7, FFN)[:, 3:].reshape(-1, FFN))
    assert (clusters, seed) == (3, 7)
    assert found.centroids.shape == (5, FFN)
    assert found.counts.tolist() == [0, 1, 2, 6, 12]
    assert (found.inertia, found.distinct_points) == (2.5, 9)
    assert found.prefix.tolist() == [3, 4, 4]


def test_no_patch_is_in_a_cluster_of_prefix_tokens() -> None:
    # The nearest centroid of every patch is the class token's.
    centroids = torch.tensor([[0.0] * FFN, [0.1] * FFN, [1.0] * FFN])
    counts, prefix = torch.tensor([5, 5, 5]), torch.tensor([2])
    found = Clusters(
        centroids=centroids, counts=counts, inertia=0.0, distinct_points=3, prefix=prefix
    )
    gates = torch.ones(2, 4, FFN, dtype=torch.uint8)
    assert found.labeller()(gates).tolist() == [[2, 1, 1, 1]] * 2
    assert counts.tolist() == [5, 5, 5]


def test_the_sample_is_of_the_seed_and_brings_the_prefix_of_each_image() -> None:
    def rows(seed: int, prefix: int) -> dict[int, list[int]]:
        plan = SamplePlan.make([2, 5, 9], 12, 15, seed, prefix)
        return {image: each.tolist() for image, each in plan.rows.items()}

    assert rows(0, 2) == rows(0, 2) != rows(1, 2)
    found = rows(0, 2)
    assert set(found) == {2, 5, 9}
    assert sum(len(each) - 2 for each in found.values()) == 15
    for each in found.values():
        assert each[:2] == [0, 1]
        assert all(2 <= token < 12 for token in each[2:])
        assert len(set(each)) == len(each)


def test_what_the_first_process_learns_is_what_all_have() -> None:
    made = Clusters(
        centroids=torch.rand(3, FFN),
        counts=torch.tensor([4, 5, 6]),
        inertia=1.25,
        distinct_points=7,
        prefix=torch.tensor([2]),
    )
    sent: list[Any] = []
    first: Any = Some(leads=True, broadcast=lambda given: sent.append(given) or given)
    own = agreed(first, lambda pair: made, (1, 2))
    other: Any = Some(leads=False, broadcast=lambda given: given or sent[0])
    theirs = agreed(other, lambda pair: pytest.fail("learns"), (1, 2))
    for found in (own, theirs):
        assert torch.equal(found.centroids, made.centroids)
        assert (found.inertia, found.distinct_points, found.guided) == (1.25, 7, None)
        assert found.counts.tolist() == [4, 5, 6]
        assert found.prefix.tolist() == [2]


def test_nothing_to_learn_from_is_an_error_in_every_process() -> None:
    sent: list[Any] = []
    first: Any = Some(leads=True, broadcast=lambda given: sent.append(given) or given)
    other: Any = Some(leads=False, broadcast=lambda _given: sent[0])
    for world in (first, other, World()):
        with pytest.raises(XaikitError, match="none of the images that clusters are learnt on"):
            agreed(world, lambda pair: None, (1, 2))
