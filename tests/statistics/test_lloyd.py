"""Lloyd's iterations: what is returned belongs together, and empty clusters move apart."""

from __future__ import annotations

import numpy as np
import pytest

from xaikit.statistics.lloyd import _refill, lloyd


def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)


@pytest.mark.parametrize("iterations", [1, 2, 3, 25])
def test_counts_and_inertia_are_those_of_the_centroids_returned(iterations: int) -> None:
    rows = points()
    found = lloyd(rows, rows[:4].copy(), iterations)
    apart = ((rows[:, None] - found.centroids.astype(np.float64)) ** 2).sum(2)
    assert found.inertia == pytest.approx(apart.min(1).mean(), rel=1e-5)
    assert found.counts.tolist() == np.bincount(apart.argmin(1), minlength=4).tolist()
    assert found.iterations <= iterations


def test_empty_clusters_move_to_points_that_are_far_from_one_another_too() -> None:
    """The farthest two points lie together: one of them and the next group get a centroid."""
    rows = np.array([[0, 0], [0, 1], [50, 0], [50, 1], [0, 30]], np.float32)
    centroids = np.zeros((3, 2), np.float32)
    distances = (rows**2).sum(1)
    assert _refill(rows, centroids, np.array([1, 2]), distances) == 2
    assert centroids.tolist() == [[0, 0], [50, 1], [0, 30]]


def test_no_cluster_moves_to_a_point_that_has_a_centroid_already() -> None:
    rows = np.array([[3, 4], [3, 4]], np.float32)
    centroids = np.array([[3, 4], [0, 0]], np.float32)
    assert _refill(rows, centroids, np.array([1]), np.array([1e-6, 0], np.float32)) == 0
    assert centroids[1].tolist() == [0, 0]


def test_a_cluster_that_has_just_moved_is_given_another_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it gains shows in the next one: the iterations end where nothing moves or falls."""
    inertias, moved = iter([1.0, 1.0, 0.5, 0.5]), iter([0, 1, 0, 0])
    module = "xaikit.statistics.lloyd"

    def scripted(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, ...]:
        distances = np.full(len(rows), next(inertias), np.float32)
        return distances, np.array([2, 0]), np.zeros((2, 2))

    monkeypatch.setattr(f"{module}.assignment_pass", scripted)
    monkeypatch.setattr(f"{module}._refill", lambda *_: next(moved))
    found = lloyd(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), 25)
    assert (found.iterations, found.inertia) == (4, 0.5)
