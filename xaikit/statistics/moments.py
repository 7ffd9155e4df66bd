"""Exact permutation moments of every edge, for token destinations.

Under whole-image permutation, ``n_k P[k,h,j] = sum_b f(pi(b), b)`` with
``f(b', b) = sum_i L[b',i] A[b,h,i,j]``. Hoeffding's combinatorial central limit theorem gives its
mean and variance in closed form; in terms of the covariances over images of the labels and of the
logits, the variance is ``1/(B-1) sum_{i,i'} (sum_b L~L~)(sum_b a~a~)``.

References
----------
Hoeffding (1951), A combinatorial central limit theorem, Ann. Math. Statist. 22.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.permutations import one_hot

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def label_covariance(
    labels: Int[Tensor, "image token"], clusters: int
) -> Float[Tensor, "cluster token token"]:
    """``sum_b L~[b,i] L~[b,i']`` of each cluster's indicator, centred over images.

    From counts, which are exact: a token that a cluster always holds has a covariance of 0.
    """
    images, tokens = labels.shape
    joint = torch.zeros(clusters, tokens, tokens, dtype=torch.float64, device=labels.device)
    counts = torch.zeros(clusters, tokens, dtype=torch.float64, device=labels.device)
    for part in labels.split(256):
        indicators = one_hot(part, clusters).permute(2, 1, 0)
        joint += indicators @ indicators.transpose(1, 2)
        counts += indicators.sum(2)
    return joint - counts.unsqueeze(2) * counts.unsqueeze(1) / max(images, 1)


def head_variance(
    chunks: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    covariance: Float[Tensor, "cluster token token"],
    images: int,
    *,
    budget_bytes: int = 1 << 28,
) -> tuple[Float[Tensor, "cluster token"], Float[Tensor, "cluster token"]]:
    """Variance of ``n_k P[k,h,:]`` and the energy of one head.

    Memory is bounded by `budget_bytes` whatever the number of images: the covariance of the
    logits over images, ``[token, token, token]``, is built for as many destinations at a time.

    Parameters
    ----------
    chunks : callable
        Returns an iterator over ``(labels [image, token], residual logits [image, token,
        token])``, the logits centred over images at each position; called once for each slab
        of destinations.
    covariance : Float[Tensor, "cluster token token"]
        Of `label_covariance`, for the same images.
    images : int
        Their number, `B`.

    Returns
    -------
    variance, energy : Float[Tensor, "cluster token"]
        ``energy`` is the sum of squared residuals over the rows of each cluster.
    """
    clusters, tokens, _ = covariance.shape
    device = covariance.device
    slab = max(1, min(tokens, budget_bytes // (4 * tokens * tokens)))
    variance = torch.zeros(clusters, tokens, dtype=torch.float64, device=device)
    energy = torch.zeros_like(variance)
    flat = covariance.reshape(clusters, -1)
    for start in range(0, tokens, slab):
        stop = min(start + slab, tokens)
        products = torch.zeros(stop - start, tokens, tokens, device=device)
        for labels, residual in chunks():
            part = residual[:, :, start:stop].permute(2, 1, 0).contiguous()
            products.baddbmm_(part, part.transpose(1, 2))
            sources = one_hot(labels, clusters).transpose(1, 2)
            squares = residual[:, :, start:stop].square()
            energy[:, start:stop] += (sources @ squares).sum(0, dtype=torch.float64)
        for piece, columns in zip(
            products.split(32), torch.arange(start, stop).split(32), strict=True
        ):
            variance[:, columns] = flat @ piece.reshape(len(piece), -1).double().T
    return variance / max(images - 1, 1), energy


def zscores(
    residual_sums: Float[Tensor, "cluster head destination"],
    variance: Float[Tensor, "cluster head destination"],
    counts: Float[Tensor, "..."],
    scale: float,
) -> Float[Tensor, "cluster head destination"]:
    """Permutation z-scores; 0 where no permutation can change the prototype.

    Parameters
    ----------
    residual_sums : Float[Tensor, "cluster head destination"]
        ``n_k P`` minus its permutation mean.
    counts : Float[Tensor, "..."]
        Entries behind each prototype, broadcast against the others.
    scale : float
        Root mean square of the logits; a standard deviation of the prototype below 1e-7 of it is
        float32 rounding.
    """
    deviation = variance.clamp(min=0.0).sqrt()
    real = deviation > 1e-7 * scale * counts.clamp(min=1.0)
    return torch.where(real, residual_sums / torch.where(real, deviation, 1.0), 0.0)
