"""A divisive tree on a few coordinates: no seed, no iterations to undo what it decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class _Leaf:
    """Rows of a leaf, and its best cut: the rows on the near side and what the cut gains."""

    rows: Int64[np.ndarray, " row"]
    near: Int64[np.ndarray, " near"]
    far: Int64[np.ndarray, " far"]
    gain: float


def divisive_tree(
    points: Float64[np.ndarray, "row dim"], leaves: int
) -> list[Int64[np.ndarray, " _"]]:
    """Split rows again and again, where and how the squared error falls most.

    A leaf is cut across its first principal axis, at the place that takes most off the sum of
    squared distances to the two sides' means; the leaf with the largest fall is split next, ties
    to the older leaf. Rows that coincide stay together.

    Parameters
    ----------
    points : float64 [row, dim]
        Finite coordinates.
    leaves : int
        Most leaves; fewer where fewer rows differ.

    Returns
    -------
    list of int64 arrays
        Row numbers of each leaf, the largest leaf first, ties to the lowest row.

    Raises
    ------
    UsageError
        If there are no rows or a coordinate is not finite.
    """
    if leaves < 1 or not len(points):
        raise UsageError(f"cannot split {len(points)} rows into {leaves} clusters")
    if not np.isfinite(points).all():
        raise UsageError("guided clustering was given coordinates that are not finite")
    found = [_leaf(points, np.arange(len(points)))]
    while len(found) < leaves:
        place = max(range(len(found)), key=lambda at: (found[at].gain, -at))
        if found[place].gain <= 0.0:
            break
        parent = found[place]
        found[place] = _leaf(points, parent.near)
        found.append(_leaf(points, parent.far))
    return sorted((leaf.rows for leaf in found), key=lambda rows: (-len(rows), rows[0]))


def _leaf(points: np.ndarray, rows: np.ndarray) -> _Leaf:
    """A leaf with its best cut; a gain of 0 where all its rows coincide."""
    none = np.empty(0, np.int64)
    centred = points[rows] - points[rows].mean(0)
    # einsum: no BLAS, whose sums depend on the number of threads.
    spread = np.einsum("ni,nj->ij", centred, centred)
    if len(rows) < 2 or not spread.any():
        return _Leaf(rows, none, none, 0.0)
    axis = np.linalg.eigh(spread)[1][:, -1]
    axis = axis if axis[np.argmax(np.abs(axis))] > 0 else -axis
    along = np.einsum("ni,i->n", centred, axis)
    order = np.argsort(along, kind="stable")
    sums = np.cumsum(centred[order], axis=0)[:-1]
    sizes = np.arange(1, len(rows))
    # Between-group sum of squares of two groups whose sums are s and -s (centred rows).
    gains = (sums * sums).sum(1) * (1.0 / sizes + 1.0 / (len(rows) - sizes))
    gains[along[order][1:] <= along[order][:-1]] = 0.0
    place = int(np.argmax(gains))
    if gains[place] <= 0.0:
        return _Leaf(rows, none, none, 0.0)
    return _Leaf(
        rows,
        np.sort(rows[order[: place + 1]]),
        np.sort(rows[order[place + 1 :]]),
        float(gains[place]),
    )
