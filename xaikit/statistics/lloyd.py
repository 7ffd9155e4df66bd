"""Lloyd's iterations on gates: FAISS finds the nearest centroids, empty clusters move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float32, Int64

ROUNDING = 4e-6
"""Share of a squared norm below which a float32 squared distance is only rounding."""

_TOLERANCE = 5e-4
_BLOCK_ROWS = 32768


@dataclass(frozen=True)
class LloydRun:
    """Centroids, their rows and mean squared distance, and the iterations made."""

    centroids: Float32[np.ndarray, "k d"]
    counts: Int64[np.ndarray, " k"]
    inertia: float
    iterations: int


def lloyd(
    points: np.ndarray,
    centroids: Float32[np.ndarray, "k d"],
    iterations: int,
    progress: Progress = silent,
) -> LloydRun:
    """Lloyd's iterations; counts and inertia are those of the centroids returned."""
    previous, step = float("inf"), 0
    while True:
        step += 1
        distances, counts, sums = _pass(points, centroids)
        inertia = float(distances.mean(dtype=np.float64))
        progress("k-means iterations", step, iterations)
        if step >= iterations:
            break
        updated = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        refilled = _refill(points, updated, np.flatnonzero(counts == 0), distances)
        if inertia >= previous * (1 - _TOLERANCE) and not refilled:
            break
        previous, centroids = inertia, updated
    progress("k-means iterations", iterations, iterations)
    return LloydRun(centroids, counts, inertia, step)


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
        if distances.max() <= ROUNDING * max(float(row @ row), 1e-30):
            return done
        centroids[cluster] = row
        for rows, block in _blocks(points):
            apart = np.square(block).sum(1) + row @ row - 2 * (block @ row)
            distances[rows] = np.minimum(distances[rows], apart.clip(min=0))
    return len(empty)
