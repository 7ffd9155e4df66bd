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
from xaikit.statistics.lloyd import ROUNDING, LloydRun, lloyd

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int64, Num, Shaped
    from torch import Tensor

_START_ROWS = 2048


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
    restarts: int = 4,
    iterations: int = 25,
    progress: Progress = silent,
) -> KMeansResult:
    """Cluster gates by squared Euclidean distance, the nearest centroids found by FAISS.

    Each start is a k-means|| (Bahmani et al. 2012, k-means++ a few points at a time) of three
    times as many clusters on 2,048 rows (more where `k` is large), joined to `k` by Ward's
    criterion; the best one is iterated on all rows until the inertia falls by less than 0.05 %
    a step. An empty cluster moves to the farthest point.

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
    _check(sample, k)
    first, multiplicity = _distinct(sample)
    if len(first) <= k:
        centroids = np.zeros((k, sample.shape[1]), np.float32)
        centroids[: len(first)] = sample[first]
        counts = np.pad(multiplicity, (0, k - len(first)))
        run, starts = LloydRun(centroids, counts, 0.0, 0), [0.0]
    else:
        rng = np.random.default_rng(seed)
        centroids, starts = _best_start(sample, k, rng, max(restarts, 1))
        run = lloyd(sample, centroids, iterations, progress)
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
    gates: Shaped[np.ndarray, "n d"],
    centroids: Float[np.ndarray, "k d"],
    counts: Int64[np.ndarray, " k"] | None = None,
    *,
    chunk: int = 1024,
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
    gates: Shaped[Tensor, "... d"],
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


def _check(sample: np.ndarray, k: int) -> None:
    if k < 1:
        raise UsageError(f"number of clusters is {k}; expected at least 1")
    if sample.ndim != 2 or 0 in sample.shape:
        raise UsageError(f"k-means was given rows of shape {sample.shape}; expected [n, d], n > 0")
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        raise UsageError("k-means was given gates that are not finite; trace them again")


def _distinct(sample: np.ndarray) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """First row and multiplicity of each distinct row."""
    if sample.dtype.kind in "bu" and sample.max() <= 1:
        rows = np.packbits(sample, axis=1)
    else:
        rows = np.ascontiguousarray(sample).view(np.uint8)
    keys = rows.view(np.dtype((np.void, rows.shape[1]))).ravel()
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return first, counts


def _best_start(
    points: np.ndarray, k: int, rng: np.random.Generator, restarts: int
) -> tuple[Float32[np.ndarray, "k d"], list[float]]:
    """The centroids of the best of several starts on some of the rows, and all inertias."""
    rows = min(len(points), max(_START_ROWS, 64 * k))
    some = points[np.sort(rng.choice(len(points), rows, replace=False))].astype(np.float32)
    starts = [_merge(*_spread(some, k, rng), k) for _ in range(restarts)]
    found = [lloyd(some, start, 2) for start in starts]
    best = min(found, key=lambda run: run.inertia)
    return lloyd(some, best.centroids, 3).centroids, [run.inertia for run in found]


def _merge(
    means: Float64[np.ndarray, "m d"], counts: Int64[np.ndarray, " m"], k: int
) -> Float32[np.ndarray, "k d"]:
    """Join the two groups that add least to the inertia until `k` are left (Ward 1963).

    Groups without points are left out; where that leaves fewer than `k`, the first fills up.
    """
    means, sizes = means[counts > 0], counts[counts > 0].astype(np.float64)
    norms = (means * means).sum(1)
    apart = norms[:, None] + norms - 2 * means @ means.T
    np.fill_diagonal(apart, np.inf)
    left = np.ones(len(means), bool)
    cost = apart * (sizes[:, None] * sizes / (sizes[:, None] + sizes))
    # Of each row the cheapest partner, so that a merge costs a few rows in place of all.
    nearest = cost.argmin(1)
    least = cost[np.arange(len(cost)), nearest]
    for _ in range(len(means) - k):
        kept = int(least.argmin())
        gone = int(nearest[kept])
        total = sizes[kept] + sizes[gone]
        share = sizes[gone] / total
        means[kept] += share * (means[gone] - means[kept])
        # Squared distances from a point on the line between two others (Stewart).
        moved = (1 - share) * apart[kept] + share * apart[gone]
        moved -= share * (1 - share) * apart[kept, gone]
        moved[kept] = np.inf
        apart[kept], apart[:, kept] = moved, moved
        apart[gone], apart[:, gone] = np.inf, np.inf
        sizes[kept] = total
        left[gone] = False
        cost[kept] = cost[:, kept] = moved * (sizes * total / (sizes + total))
        cost[gone] = cost[:, gone] = np.inf
        closer = (cost[:, kept] < least) | ((cost[:, kept] == least) & (kept < nearest))
        nearest[closer], least[closer] = kept, cost[closer, kept]
        again = np.flatnonzero((nearest == gone) | (nearest == kept) & ~closer)
        again = np.union1d(again, [kept, gone])
        nearest[again] = cost[again].argmin(1)
        least[again] = cost[again, nearest[again]]
    found = means[left]
    spare = np.repeat(found[:1], max(k - len(found), 0), axis=0)
    return np.concatenate([found, spare]).astype(np.float32)


def _spread(
    points: Float32[np.ndarray, "n d"], k: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "m d"], Int64[np.ndarray, " m"]]:
    """Means and sizes of the rows nearest to some drawn ones.

    About three times as many as `k` are drawn, in rounds, by squared distance to those before.
    """
    rows = torch.from_numpy(points)
    norms = rows.square().sum(1)
    rounding = ROUNDING * float(norms.max())
    nearest = torch.full((len(points),), torch.inf)
    owners = torch.zeros(len(points), dtype=torch.int64)
    drawn, new = 0, torch.tensor([int(rng.integers(len(points)))])
    while True:
        apart = norms[:, None] + norms[new] - 2 * (rows @ rows[new].T)
        least, place = apart.min(1)
        owners = torch.where(least < nearest, place + drawn, owners)
        nearest = torch.minimum(nearest, least)
        nearest[nearest < rounding] = 0
        drawn += len(new)
        if drawn >= 3 * k or not bool(nearest.any()):
            break
        mass = nearest.double().cumsum(0).numpy()
        places = np.searchsorted(mass, rng.random((k + 1) // 2) * mass[-1], side="right")
        new = torch.from_numpy(np.unique(places.clip(max=len(points) - 1)))
    sums = torch.zeros(drawn, points.shape[1]).index_add_(0, owners, rows).double()
    counts = torch.bincount(owners, minlength=drawn)
    return (sums / counts.clamp(min=1)[:, None]).numpy(), counts.numpy()
