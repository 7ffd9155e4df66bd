"""The contract's definitions, written out slowly in float64 loops, for tests to compare with.

Throughout, ``A`` is logits ``[B, H, N, N]``, ``c`` labels ``[B, N]``, ``K`` the number of clusters;
``where`` is ``"token"`` or ``"cluster"``: what an edge ends at.
"""

from __future__ import annotations

import itertools

import numpy as np


def random_case(seed, B=6, H=2, N=5, K=4, empty=2, shift=3.0):
    """Random logits and labels; cluster `empty` holds no token."""
    rng = np.random.default_rng(seed)
    A = (rng.normal(size=(B, H, N, N)) + shift * rng.normal(size=(H, 1, N))).astype(np.float32)
    present = [k for k in range(K) if k != empty]
    return A.astype(np.float64), rng.choice(present, size=(B, N))


def rows_of(c, k):
    return [(b, i) for b in range(c.shape[0]) for i in range(c.shape[1]) if c[b, i] == k]


def entries_of(c, k, destination, where):
    """Entries ``(b, i, j)`` that an edge of cluster `k` towards `destination` covers."""
    N = c.shape[1]
    return [
        (b, i, j)
        for b, i in rows_of(c, k)
        for j in range(N)
        if (j == destination if where == "token" else c[b, j] == destination)
    ]


def destinations(c, K, where):
    return range(c.shape[1] if where == "token" else K)


def cell_means(A, c, K, where):
    """Mean of `A` over the entries of every edge ``[K, H, destination]``; 0 for none."""
    width = len(destinations(c, K, where))
    P = np.zeros((K, A.shape[1], width))
    for k, h, d in np.ndindex(P.shape):
        values = [A[b, h, i, j] for b, i, j in entries_of(c, k, d, where)]
        P[k, h, d] = sum(values) / len(values) if values else 0.0
    return P


def support(c, K, where):
    width = len(destinations(c, K, where))
    return np.array([[len(entries_of(c, k, d, where)) for d in range(width)] for k in range(K)])


def predicted(P, c, where):
    """The predicted logits, every entry of them."""
    B, N = c.shape
    out = np.zeros((B, P.shape[1], N, N))
    for b, h, i, j in np.ndindex(out.shape):
        out[b, h, i, j] = P[c[b, i], h, j if where == "token" else c[b, j]]
    return out


def position_mean(A):
    return sum(A) / len(A)


def r2(A, prediction):
    """``1 - mse / var`` with the population variance over all entries."""
    A, prediction = np.broadcast_arrays(A, prediction)
    mean = A.sum() / A.size
    var = ((A - mean) ** 2).sum() / A.size
    mse = ((A - prediction) ** 2).sum() / A.size
    if var == 0:
        return 1.0 if mse == 0 else 0.0
    return 1 - mse / var


def all_r2(train, test, K, where):
    """The four R-squared, learnt on ``train = (A, c)`` and scored on `test`."""
    (A, c), (A2, c2) = train, test
    row_mean = A.sum((0, 2)) / (A.shape[0] * A.shape[2])
    M = position_mean(A)
    step = cell_means(A - M, c, K, where)
    return {
        "r2": r2(A2, predicted(cell_means(A, c, K, where), c2, where)),
        "r2_mean": r2(A2, row_mean[None, :, None, :]),
        "r2_position": r2(A2, M[None]),
        "r2_position_cluster": r2(A2, M[None] + predicted(step, c2, where)),
    }


def contrast(A, c, K, where):
    """``P[k] - M`` centred over the destination tokens of cluster k's rows."""
    P, n = cell_means(A, c, K, where), support(c, K, where)
    everywhere = np.zeros_like(c)
    out = np.zeros_like(P)
    for k, h in np.ndindex(P.shape[:2]):
        M = np.zeros(P.shape[2])
        for d in range(P.shape[2]):
            if where == "token":
                over = entries_of(everywhere, 0, d, "token")
            else:
                over = [(b, i, j) for b, i, j in np.ndindex(A[:, 0].shape) if c[b, j] == d]
            M[d] = np.mean([A[b, h, i, j] for b, i, j in over]) if over else 0.0
        difference = P[k, h] - M
        if n[k].sum():
            out[k, h] = difference - (difference * n[k]).sum() / n[k].sum()
        out[k, h, n[k] == 0] = 0.0
    return out


def energy(A, c, K, where):
    """Squared deviations from the position mean, summed over the entries of every edge."""
    M = position_mean(A)
    width = len(destinations(c, K, where))
    out = np.zeros((K, A.shape[1], width))
    for k, h, d in np.ndindex(out.shape):
        out[k, h, d] = sum(
            (A[b, h, i, j] - M[h, i, j]) ** 2 for b, i, j in entries_of(c, k, d, where)
        )
    return out


def ablation_effect(P, c, k, where):
    """Set ``P[k]`` to zero; mean absolute change of the predicted logits over the rows of k."""
    edited = P.copy()
    edited[k] = 0.0
    change = np.abs(predicted(edited, c, where) - predicted(P, c, where))
    rows = rows_of(c, k)
    return np.mean([change[b, :, i] for b, i in rows]) if rows else 0.0


def injection_effect(P, c, k, where):
    """Give every other row ``P[k]``; mean absolute change of the predicted logits over those."""
    clean, edited = predicted(P, c, where), predicted(P, c, where)
    B, N = c.shape
    others = [(b, i) for b in range(B) for i in range(N) if c[b, i] != k]
    for b, i in others:
        for j in range(N):
            edited[b, :, i, j] = P[k, :, j if where == "token" else c[b, j]]
    return np.mean([np.abs(edited - clean)[b, :, i] for b, i in others]) if others else 0.0


def alignment_gain(A, c, k, h, d, P, where):
    """Mean over the entries of ``|A| - |A - P|``."""
    found = [abs(A[b, h, i, j]) - abs(A[b, h, i, j] - P) for b, i, j in entries_of(c, k, d, where)]
    return sum(found) / len(found) if found else 0.0


def permutation_moments(A, c, K, where):
    """Mean and variance of ``n_k P`` over all ``B!`` permutations of whole label maps."""
    n = support(c, K, where)[:, None, :]
    sums = [
        cell_means(A, c[list(order)], K, where) * n
        for order in itertools.permutations(range(len(A)))
    ]
    return np.mean(sums, axis=0), np.var(sums, axis=0)


def pvalue(observed, null):
    """``(1 + #{null >= observed}) / (1 + m)``; equal up to rounding counts as equal."""
    return (1 + sum(each >= observed - 1e-7 * abs(observed) for each in null)) / (1 + len(null))


def benjamini_hochberg(p):
    """Smallest false discovery rate at which each test is rejected, from the definition."""
    p = np.asarray(p, dtype=float).ravel()
    m = len(p)
    return np.array([min(min(1.0, t * m / (p <= t).sum()) for t in p if t >= each) for each in p])
