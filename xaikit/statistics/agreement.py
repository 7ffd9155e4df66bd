"""How far two clusterings of the same rows agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, Integer


def adjusted_rand_index(a: Integer[np.ndarray, " n"], b: Integer[np.ndarray, " n"]) -> float:
    """Agreement of two labelings: 1 for the same partition, 0 expected by chance.

    Hubert & Arabie (1985), "Comparing partitions", from the contingency table; 1 where both
    have a single cluster, or each row its own.
    """
    table = _contingency(a, b)
    together, in_a, in_b, total = (
        float((counts * (counts - 1.0) / 2.0).sum())
        for counts in (table, table.sum(1), table.sum(0), table.sum())
    )
    expected = in_a * in_b / total if total else 0.0
    most = (in_a + in_b) / 2.0
    return 1.0 if most == expected else (together - expected) / (most - expected)


def match_clusters(
    labels_a: Integer[np.ndarray, " n"], labels_b: Integer[np.ndarray, " n"], k: int
) -> Int64[np.ndarray, " k"]:
    """Pair the clusters of two labelings so that the most rows agree.

    Returns
    -------
    int64 [k]
        Cluster of `labels_b` for each cluster of `labels_a`; a permutation of ``0 .. k-1``.
    """
    flat = np.asarray(labels_a, np.int64).ravel() * k + np.asarray(labels_b, np.int64).ravel()
    overlap = np.bincount(flat, minlength=k * k).reshape(k, k)
    return _cheapest_assignment(-overlap.astype(np.float64))


def _contingency(a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, "ka kb"]:
    _, rows = np.unique(a, return_inverse=True)
    names, columns = np.unique(b, return_inverse=True)
    flat = rows.ravel() * len(names) + columns.ravel()
    size = (int(rows.max(initial=-1)) + 1) * len(names)
    return np.bincount(flat, minlength=size).reshape(-1, max(len(names), 1)).astype(np.float64)


def _cheapest_assignment(cost: Float64[np.ndarray, "k k"]) -> Int64[np.ndarray, " k"]:
    """Column of each row at the least total cost.

    Shortest augmenting paths with potentials, O(k^3): Jonker & Volgenant (1987). Index 0 of the
    columns is a stand-in from which each row starts.
    """
    k = len(cost)
    row_potential, column_potential = np.zeros(k + 1), np.zeros(k + 1)
    owner = np.zeros(k + 1, np.int64)
    for row in range(1, k + 1):
        owner[0], column = row, 0
        slack, previous = np.full(k + 1, np.inf), np.zeros(k + 1, np.int64)
        visited = np.zeros(k + 1, bool)
        while owner[column]:
            visited[column] = True
            current = owner[column]
            reduced = cost[current - 1] - row_potential[current] - column_potential[1:]
            better = ~visited[1:] & (reduced < slack[1:])
            slack[1:][better], previous[1:][better] = reduced[better], column
            nearest = int(np.where(visited, np.inf, slack)[1:].argmin()) + 1
            delta = slack[nearest]
            row_potential[owner[visited]] += delta
            column_potential[visited] -= delta
            slack[~visited] -= delta
            column = nearest
        while column:
            owner[column] = owner[previous[column]]
            column = int(previous[column])
    assignment = np.empty(k, np.int64)
    assignment[owner[1:] - 1] = np.arange(k)
    return assignment
