"""How far two clusterings of the same rows agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, Integer
    from torch import Tensor


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
    return np.asarray(linear_sum_assignment(overlap, maximize=True)[1], dtype=np.int64)


def joint_counts(lower: Tensor, upper: Tensor, rows: int, columns: int) -> Tensor:
    """Tokens by their clusters in two layers ``[rows, columns]`` int64."""
    total = torch.zeros(rows * columns, dtype=torch.int64)
    for low, high in zip(lower.split(65536), upper.split(65536), strict=True):
        total += torch.bincount((low * columns + high).reshape(-1), minlength=rows * columns)
    return total.view(rows, columns)


def _contingency(a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, "ka kb"]:
    _, rows = np.unique(a, return_inverse=True)
    names, columns = np.unique(b, return_inverse=True)
    flat = rows.ravel() * len(names) + columns.ravel()
    size = (int(rows.max(initial=-1)) + 1) * len(names)
    return np.bincount(flat, minlength=size).reshape(-1, max(len(names), 1)).astype(np.float64)
