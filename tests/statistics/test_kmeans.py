"""K-means of gates: planted groups, hard cases, and labels that no chunking can change."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch

from xaikit.errors import UsageError
from xaikit.statistics.agreement import adjusted_rand_index
from xaikit.statistics.kmeans import _merge, _spread, assign, assign_torch, kmeans


def planted(rows: int, width: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gates whose chance to be on depends on a hidden group, and the groups."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.4, 1.2, (groups, width))
    hidden = rng.integers(0, groups, rows)
    return (rng.random((rows, width)) < rates[hidden]).astype(np.uint8), hidden


def test_planted_groups_are_found_and_centroids_are_their_means() -> None:
    gates, hidden = planted(3000, 96, 8, seed=0)
    found = kmeans(gates, 8, seed=0)
    labels = assign(gates, found.centroids, found.counts)
    assert adjusted_rand_index(labels, hidden) > 0.98
    means = np.stack([gates[labels == k].mean(0) for k in range(8)])
    np.testing.assert_allclose(found.centroids, means, atol=0.02)
    assert np.array_equal(np.bincount(labels, minlength=8), found.counts)
    assert np.all(np.diff(found.counts) <= 0)
    assert found.empty == 0
    assert len(found.inertia_per_restart) == 4


def test_the_best_of_several_starts_is_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three starts put both of their centroids where Lloyd's iterations leave them."""
    corners = np.repeat(np.array([[0, 0], [0, 1], [8, 0], [8, 1]], np.float32), 50, axis=0)
    bad, good = np.array([[4, 0], [4, 1]], np.float32), np.array([[0, 0], [8, 0]], np.float32)
    starts = iter([bad, good, bad])
    monkeypatch.setattr("xaikit.statistics.kmeans._merge", lambda *_: next(starts))
    found = kmeans(corners, 2, seed=0, restarts=3)
    assert sorted(found.centroids[:, 0].tolist()) == [0, 8]
    assert found.inertia_per_restart == pytest.approx((16, 0.25, 16), rel=0.2)


def test_groups_that_add_least_to_the_inertia_are_joined() -> None:
    """Ward's criterion: two near groups of many rows stay apart longer than far ones of one."""
    means, counts = np.array([[0.0], [1.0], [10.0], [12.5], [40.0]]), np.array([90, 90, 1, 1, 0])
    assert np.sort(_merge(means.copy(), counts, 3).ravel()).tolist() == [0, 1, 11.25]
    rng = np.random.default_rng(3)
    means, counts = rng.normal(size=(12, 3)), rng.integers(1, 9, 12)
    groups = [([row], counts[row]) for row in range(12)]
    while len(groups) > 4:

        def cost(pair: tuple[int, int]) -> float:
            sizes = [groups[at][1] for at in pair]
            centres = [
                np.average(means[groups[at][0]], axis=0, weights=counts[groups[at][0]])
                for at in pair
            ]
            return sizes[0] * sizes[1] / sum(sizes) * ((centres[0] - centres[1]) ** 2).sum()

        one, other = min(combinations(range(len(groups)), 2), key=cost)
        rows, size = groups.pop(other)
        groups[one] = (groups[one][0] + rows, groups[one][1] + size)
    expected = [np.average(means[rows], axis=0, weights=counts[rows]) for rows, _ in groups]
    found = _merge(means.copy(), counts, 4)
    np.testing.assert_allclose(
        found[found[:, 0].argsort()],
        np.array(sorted(expected, key=lambda each: each[0])),
        rtol=1e-5,
    )


def test_a_start_is_merged_from_three_times_as_many_groups() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    means, counts = _spread(rows, 10, np.random.default_rng(1))
    assert 30 <= len(means) < 36
    assert counts.sum() == 400


def test_inertia_is_the_mean_squared_distance_of_the_labels() -> None:
    gates, _ = planted(500, 40, 5, seed=1)
    found = kmeans(gates, 4, seed=3)
    labels = assign(gates, found.centroids, found.counts)
    distances = ((gates - found.centroids.astype(np.float64)[labels]) ** 2).sum(1)
    assert found.inertia == pytest.approx(distances.mean(), rel=1e-5)


def test_inertia_is_within_a_percent_of_full_scikit_learn_k_means() -> None:
    from sklearn.cluster import KMeans

    gates, _ = planted(2000, 64, 12, seed=2)
    theirs = KMeans(12, n_init=3, random_state=0).fit(gates.astype(np.float32))
    assert kmeans(gates, 12, seed=0).inertia <= 1.01 * theirs.inertia_ / len(gates)


def test_same_seed_gives_the_same_centroids_and_dtype_does_not_matter() -> None:
    gates, _ = planted(1500, 64, 10, seed=4)
    first, again = kmeans(gates, 6, seed=7), kmeans(gates.astype(np.float32), 6, seed=7)
    assert np.array_equal(first.centroids, again.centroids)
    assert first.inertia == again.inertia
    assert not np.array_equal(first.centroids, kmeans(gates, 6, seed=8).centroids)


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_fewer_distinct_rows_than_clusters_leave_clusters_empty(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    patterns = np.unpackbits(np.arange(1, distinct + 1, dtype=np.uint8)[:, None], axis=1)
    gates = patterns[rng.integers(0, distinct, 200)]
    found = kmeans(gates, 8, seed=0)
    assert found.distinct_points == distinct
    assert found.empty == 8 - distinct
    assert found.inertia == 0
    assert not found.centroids[found.counts == 0].any()
    labels = assign(gates, found.centroids, found.counts)
    assert np.array_equal(found.centroids[labels], gates)


def test_an_empty_cluster_stays_empty_for_rows_near_its_zero_centroid() -> None:
    gates = np.ones((50, 16), np.uint8)
    found = kmeans(gates, 4, seed=0)
    off = np.zeros((3, 16), np.uint8)
    assert set(assign(off, found.centroids, found.counts)) == {0}
    labels = assign_torch(
        torch.from_numpy(off), torch.from_numpy(found.centroids), torch.from_numpy(found.counts)
    )
    assert labels.tolist() == [0, 0, 0]


def test_rare_patterns_among_duplicates_get_clusters_of_their_own() -> None:
    gates = np.zeros((20_000, 64), np.uint8)
    gates[:7, :42] = np.eye(7, dtype=np.uint8).repeat(6, axis=1)
    found = kmeans(gates, 8, seed=0)
    assert found.empty == 0
    assert found.inertia == 0
    assert found.counts.tolist() == [19_993, 1, 1, 1, 1, 1, 1, 1]

    gates[7, 50:] = 1
    crowded = kmeans(gates, 8, seed=0)
    assert crowded.distinct_points == 9
    assert crowded.empty == 0
    assert np.isfinite(crowded.centroids).all()


def test_unused_dimensions_and_one_cluster() -> None:
    gates, _ = planted(300, 32, 3, seed=5)
    gates[:, 8:20] = 0
    gates[:, 20:] = 1
    found = kmeans(gates, 3, seed=0)
    assert not found.centroids[:, 8:20].any()
    assert (found.centroids[:, 20:] == 1).all()
    np.testing.assert_allclose(kmeans(gates, 1, seed=0).centroids[0], gates.mean(0), atol=1e-6)


def test_threads_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    gates, _ = planted(1200, 48, 6, seed=6)
    whole = kmeans(gates, 6, seed=0)
    monkeypatch.setattr("xaikit.statistics.lloyd._BLOCK_ROWS", 100)
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 5)
    assert np.array_equal(whole.centroids, kmeans(gates, 6, seed=0).centroids)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    kmeans(planted(60, 16, 3, seed=7)[0], 20, seed=0)
    assert capfd.readouterr() == ("", "")


def tied(width: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Binary rows and centroids of coarse means, so that exact ties are common."""
    rng = np.random.default_rng(width)
    centroids = (rng.integers(0, 4, (k, width)) / 3).astype(np.float32)
    centroids[k // 2 :] = centroids[: k - k // 2][:, ::-1]
    gates = rng.integers(0, 2, (400, width)).astype(np.uint8)
    gates[:200, width - width // 2 :] = gates[:200, : width // 2][:, ::-1]
    return gates, centroids


def test_labels_are_the_exact_nearest_centroid_ties_to_the_lowest() -> None:
    gates, centroids = tied(20, 6)
    labels = assign(gates, centroids)
    tabled = [[Fraction(float(value)) for value in row] for row in centroids]
    ties = 0
    for row, label in zip(gates.tolist(), labels, strict=True):
        apart = [sum((g - c) ** 2 for g, c in zip(row, centre, strict=True)) for centre in tabled]
        assert label == apart.index(min(apart))
        ties += apart.count(min(apart)) > 1
    assert ties > 50


@pytest.mark.parametrize("width", [20, 3072])
def test_labels_are_the_same_for_any_chunk_order_of_columns_and_backend(width: int) -> None:
    gates, centroids = tied(width, 8)
    labels = assign(gates, centroids)
    for chunk in (1, 7, 64, 399):
        assert np.array_equal(assign(gates, centroids, chunk=chunk), labels)
    columns = np.random.default_rng(0).permutation(width)
    assert np.array_equal(assign(gates[:, columns], centroids[:, columns]), labels)
    for batch in (1, 3, 400):
        parts = [
            assign_torch(part.bool().reshape(-1, 1, width), torch.from_numpy(centroids))
            for part in torch.from_numpy(gates).split(batch)
        ]
        assert np.array_equal(torch.cat(parts)[:, 0].numpy(), labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_labels_are_the_same_on_a_gpu() -> None:
    gates, centroids = tied(3072, 16)
    found = assign_torch(torch.from_numpy(gates).cuda(), torch.from_numpy(centroids).cuda())
    assert np.array_equal(found.cpu().numpy(), assign(gates, centroids))


@pytest.mark.parametrize(
    ("sample", "k"),
    [
        (np.zeros((4, 2), np.uint8), 0),
        (np.zeros((0, 2), np.uint8), 2),
        (np.full((4, 2), np.nan, np.float32), 2),
    ],
)
def test_bad_input_is_refused(sample: np.ndarray, k: int) -> None:
    with pytest.raises(UsageError):
        kmeans(sample, k, seed=0)


def test_labels_cannot_depend_on_the_order_of_summation():
    """A centroid's entries are multiples of one power of two: sums of them are exact."""
    from fractions import Fraction

    from xaikit.statistics.kmeans import _codebook

    rng = np.random.default_rng(0)
    width = 3000
    centroids = rng.random((3, width)).astype(np.float32)
    centroids[0, :3] = [1e-9, 1 / 3, 1.0]
    table, offsets = _codebook(centroids, None)
    grid = Fraction(1, 2 ** (53 - 12))
    assert all(Fraction(value) % grid == 0 for value in table.ravel().tolist())
    assert np.abs(table - centroids).max() <= float(grid)
    row = rng.integers(0, 2, width).astype(np.float64)
    exact = [float(sum(Fraction(v) for v, g in zip(t, row, strict=True) if g)) for t in table]
    for order in (np.arange(width), np.arange(width)[::-1], rng.permutation(width)):
        plain = [sum((t[order] * row[order]).tolist()) for t in table]
        assert plain == exact
    assert offsets.tolist() == [math.fsum((t * t).tolist()) for t in table]
