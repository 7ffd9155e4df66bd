"""K-means of binary FFN gates, and labels that do not depend on how the rows are cut.

Two promises hold for gates of zeros and ones. *Learning*: the same sample and seed give the same
centroids on one machine; duplicates, constant columns and fewer distinct points than clusters
leave clusters empty and never give a NaN. *Labelling*: a row's label is the same for any chunk
or batch size, in any process and on any device, so that a streamed and a stored trace agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.errors import UsageError
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Float32, Int64, Num
    from torch import Tensor

_START_ROWS = 4096
_START_ITERATIONS = 4
_START_TOLERANCE = 1e-3
_TOLERANCE = 3e-4
_BLOCK_ROWS = 32768
_FLOAT_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class KMeansResult:
    """What `kmeans` found, clusters ordered from the largest in the sample to the smallest.

    Attributes
    ----------
    centroids : float32 [k, d]
        Means of the gates; zero for an empty cluster.
    counts : int64 [k]
        Sample rows of each cluster. Hand them to `assign`: a cluster of none gets no row.
    inertia : float
        Mean over the sample's rows of the squared distance to the nearest centroid.
    inertia_per_restart : tuple of float
        The same for each start, on the rows that the starts are compared on.
    iterations : int
        Lloyd iterations on the whole sample.
    empty : int
        Clusters without a row.
    distinct_points : int
        Rows of the sample that differ.
    """

    centroids: Float32[np.ndarray, "k d"]
    counts: Int64[np.ndarray, " k"]
    inertia: float
    inertia_per_restart: tuple[float, ...]
    iterations: int
    empty: int
    distinct_points: int


def kmeans(
    sample: Num[np.ndarray, "n d"],
    k: int,
    *,
    seed: int,
    restarts: int = 3,
    iterations: int = 25,
    progress: Progress = silent,
) -> KMeansResult:
    """Cluster gates by squared Euclidean distance, the nearest centroids found by FAISS.

    Each start is a greedy k-means++ (Arthur & Vassilvitskii 2007) and a few Lloyd iterations on
    at most 4,096 rows (more where `k` is large); the best one is then iterated on all rows until
    the inertia falls by less than 0.03 % a step. An empty cluster moves to the farthest point.

    Parameters
    ----------
    sample : uint8 or float32 [n, d]
        Gates; other numbers are read as float32.
    k : int
        Clusters.
    seed : int
        Of the starts.
    restarts, iterations : int
        Starts, and the most Lloyd iterations on the whole sample.
    progress : callable
        Called as ``progress("k-means iterations", done, iterations)``.

    Raises
    ------
    UsageError
        No rows, fewer than one cluster, or values that are not finite.
    """
    points = _as_points(sample, k)
    first, multiplicity = _distinct(points)
    if len(first) <= k:
        centroids = np.zeros((k, points.shape[1]), np.float32)
        centroids[: len(first)] = points[first]
        counts = np.pad(multiplicity, (0, k - len(first)))
        run, starts = _Run(centroids, counts, 0.0, 0), [0.0]
    else:
        rng = np.random.default_rng(seed)
        centroids, starts = _best_start(points, k, rng, max(restarts, 1))
        run = _lloyd(points, centroids, iterations, _TOLERANCE, progress)
    order = np.argsort(-run.counts, kind="stable")
    counts = run.counts[order].astype(np.int64)
    return KMeansResult(
        centroids=np.where(counts[:, None] > 0, run.centroids[order], np.float32(0)),
        counts=counts,
        inertia=run.inertia,
        inertia_per_restart=tuple(starts),
        iterations=run.iterations,
        empty=int((counts == 0).sum()),
        distinct_points=len(first),
    )


def assign(
    gates: Num[np.ndarray, "n d"],
    centroids: Float[np.ndarray, "k d"],
    counts: Int64[np.ndarray, " k"] | None = None,
    *,
    chunk: int = 512,
) -> Int64[np.ndarray, " n"]:
    """Nearest centroid of each row by squared Euclidean distance, ties to the lowest index.

    Centroids are read on a grid of ``2**-b``, ``b = 53 - ceil(log2 d)`` (finer than float32 for
    every value above ``2**(24 - b)``, 8e-6 at d = 3072), so that every partial sum of a
    binary row times a centroid is exact in float64 and no order of summation can change a label.

    Parameters
    ----------
    gates : uint8, bool or float [n, d]
        Rows; the promise of exactness is for zeros and ones.
    centroids : float [k, d]
        Values in [0, 1] for binary gates.
    counts : int64 [k], optional
        Rows of each cluster; a cluster of none is left out.
    chunk : int
        Rows converted at a time (``8 * chunk * d`` bytes).
    """
    table, offsets = _codebook(centroids, counts)
    labels = np.empty(len(gates), np.int64)
    for start in range(0, len(gates), chunk):
        dots = gates[start : start + chunk].astype(np.float64) @ table.T
        labels[start : start + chunk] = (offsets - 2 * dots).argmin(axis=1)
    return labels


def assign_torch(
    gates: Num[Tensor, "... d"],
    centroids: Float[Tensor, "k d"],
    counts: Int64[Tensor, " k"] | None = None,
) -> Int64[Tensor, " ..."]:
    """`assign` for tensors, on the device of `gates`; binary rows get the very same labels."""
    # Apple's devices have no float64.
    device = gates.device if gates.device.type != "mps" else torch.device("cpu")
    arrays = (centroids.cpu().numpy(), None if counts is None else counts.cpu().numpy())
    table, offsets = (torch.from_numpy(part).to(device) for part in _codebook(*arrays))
    rows = gates.detach().to(device).reshape(-1, gates.shape[-1])
    chunk = 512 if device.type == "cpu" else 16384
    parts = [(offsets - 2 * (part.double() @ table.T)).argmin(1) for part in rows.split(chunk)]
    return torch.cat(parts).reshape(gates.shape[:-1]).to(gates.device)


def _codebook(
    centroids: np.ndarray, counts: np.ndarray | None
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """Centroids on the grid and their squared norms, infinite for clusters left out."""
    grid = 2.0 ** (53 - math.ceil(math.log2(max(centroids.shape[1], 2))))
    table = np.round(centroids.astype(np.float64) * grid) / grid
    # fsum: the same last bit on every machine.
    offsets = np.array([math.fsum(row) for row in (table * table).tolist()])
    if counts is not None:
        offsets[counts == 0] = np.inf
    return table, offsets


@dataclass(frozen=True)
class _Run:
    centroids: Float32[np.ndarray, "k d"]
    counts: Int64[np.ndarray, " k"]
    inertia: float
    iterations: int


def _as_points(sample: np.ndarray, k: int) -> np.ndarray:
    """Check the sample; as float32 where that fits, else a block at a time later."""
    if k < 1:
        raise UsageError(f"number of clusters is {k}; expected at least 1")
    if sample.ndim != 2 or 0 in sample.shape:
        raise UsageError(f"k-means was given rows of shape {sample.shape}; expected [n, d], n > 0")
    if sample.dtype != np.uint8 or 4 * sample.size <= _FLOAT_BYTES:
        sample = np.ascontiguousarray(sample, np.float32)
        if not np.isfinite(sample.sum(dtype=np.float64)):
            raise UsageError("k-means was given gates that are not finite; trace them again")
    return sample


def _distinct(points: np.ndarray) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """First row and multiplicity of each distinct row."""
    blocks = [points[i : i + 4096] for i in range(0, len(points), 4096)]
    if all(np.array_equal(block, block != 0) for block in blocks):
        rows = np.concatenate([np.packbits(block != 0, axis=1) for block in blocks])
    else:
        rows = points.view(np.uint8)
    keys = rows.view(np.dtype((np.void, rows.shape[1]))).ravel()
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return first, counts


def _best_start(
    points: np.ndarray, k: int, rng: np.random.Generator, restarts: int
) -> tuple[Float32[np.ndarray, "k d"], list[float]]:
    """The centroids of the best of several starts on some of the rows, and all inertias."""
    rows = min(len(points), max(_START_ROWS, 32 * k))
    some = points[np.sort(rng.choice(len(points), rows, replace=False))].astype(np.float32)
    runs = [
        _lloyd(some, _spread(some, k, rng), _START_ITERATIONS, _START_TOLERANCE, silent)
        for _ in range(restarts)
    ]
    return min(runs, key=lambda run: run.inertia).centroids, [run.inertia for run in runs]


def _spread(
    points: Float32[np.ndarray, "n d"], k: int, rng: np.random.Generator
) -> Float32[np.ndarray, "k d"]:
    """Greedy k-means++: of a few points drawn by squared distance, keep the most useful one."""
    rows = torch.from_numpy(points)
    norms = (rows * rows).sum(1)
    chosen = [int(rng.integers(len(points)))]
    nearest = _squared(rows, norms, chosen)[:, 0]
    for _ in range(k - 1):
        mass = nearest.double().cumsum(0).numpy()
        draws = np.searchsorted(mass, rng.random(2 + int(math.log(k))) * mass[-1], side="right")
        drawn = draws.clip(max=len(points) - 1).tolist()
        shrunk = torch.minimum(nearest[:, None], _squared(rows, norms, drawn))
        best = int(shrunk.sum(0).argmin())
        chosen.append(drawn[best])
        nearest = shrunk[:, best]
    return points[chosen]


def _squared(
    rows: Float32[Tensor, "n d"], norms: Float32[Tensor, " n"], chosen: list[int]
) -> Float32[Tensor, "n c"]:
    """Squared distances to some of the rows; zero where only rounding is left."""
    distances = norms[:, None] + norms[chosen] - 2 * (rows @ rows[chosen].T)
    return distances.masked_fill_(distances < 4e-6 * norms.max(), 0)


def _lloyd(
    points: np.ndarray,
    centroids: Float32[np.ndarray, "k d"],
    iterations: int,
    tolerance: float,
    progress: Progress,
) -> _Run:
    """Lloyd's iterations; counts and inertia are those of the centroids returned."""
    previous, step = math.inf, 0
    while True:
        step += 1
        distances, counts, sums = _pass(points, centroids)
        inertia = float(distances.mean(dtype=np.float64))
        progress("k-means iterations", step, iterations)
        if step >= iterations:
            break
        updated = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        refilled = _refill(points, updated, np.flatnonzero(counts == 0), distances)
        if inertia >= previous * (1 - tolerance) and not refilled:
            break
        previous, centroids = inertia, updated
    progress("k-means iterations", iterations, iterations)
    return _Run(centroids, counts, inertia, step)


def _blocks(points: np.ndarray) -> Iterator[tuple[slice, Float32[np.ndarray, "rows d"]]]:
    step = len(points) if points.dtype == np.float32 else _BLOCK_ROWS
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        yield rows, points[rows].astype(np.float32, copy=False)


def _pass(
    points: np.ndarray, centroids: Float32[np.ndarray, "k d"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared distance of each row to its centroid, and the rows and sum of each cluster."""
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids))
    distances = np.empty(len(points), np.float32)
    counts = np.zeros(len(centroids), np.int64)
    sums = torch.zeros(centroids.shape, dtype=torch.float64)
    for rows, block in _blocks(points):
        near, labels = index.search(block, 1)
        distances[rows] = near[:, 0].clip(min=0)
        counts += np.bincount(labels[:, 0], minlength=len(centroids))
        part = torch.zeros(centroids.shape)
        sums += part.index_add_(0, torch.from_numpy(labels[:, 0]), torch.from_numpy(block))
    return distances, counts, sums.numpy()


def _refill(
    points: np.ndarray,
    centroids: Float32[np.ndarray, "k d"],
    empty: Int64[np.ndarray, " e"],
    distances: Float32[np.ndarray, " n"],
) -> int:
    """Move empty clusters, in place, to the points farthest from all others; say how many."""
    for done, cluster in enumerate(empty):
        row = points[distances.argmax()].astype(np.float32)
        # Below this only float32 rounding is left: every point has a centroid already.
        if distances.max() <= 4e-6 * max(float(row @ row), 1e-30):
            return done
        centroids[cluster] = row
        for rows, block in _blocks(points):
            apart = np.square(block).sum(1) + row @ row - 2 * (block @ row)
            distances[rows] = np.minimum(distances[rows], apart.clip(min=0))
    return len(empty)
