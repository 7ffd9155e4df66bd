"""Exact permutation moments of every edge over all images, for token destinations.

Under whole-image permutation, ``n_k P[k,h,j] = sum_b f(pi(b), b)`` with
``f(b', b) = sum_i L[b',i] A[b,h,i,j]``. Hoeffding's combinatorial central limit theorem gives its
mean and variance in closed form; in terms of the covariances over images of the labels and of the
logits, the variance is ``1/(B-1) sum_{i,i'} (sum_b L~L~)(sum_b a~a~)``.

References
----------
Hoeffding (1951), A combinatorial central limit theorem, Ann. Math. Statist. 22.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.statistics.permutations import one_hot

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.distributed import World

_LANES = 2


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


class ImageCovariance:
    """``sum_b a~[b,i] a~[b,i']`` of the logits of each head and destination.

    Blocks are added in float32 in two lanes: one process, and two that have a lane each, give
    the same bits.
    """

    def __init__(self, heads: int, tokens: int, device: torch.device | str = "cpu") -> None:
        self._products = torch.zeros(_LANES, heads, tokens, tokens, tokens, device=device)
        self._means = torch.zeros(_LANES, heads, tokens, tokens, tokens, device=device)

    def add(
        self,
        head: int,
        centred: Float[Tensor, "image token token"],
        mean: Float[Tensor, "token token"],
        lane: int,
    ) -> None:
        """Add a block: its logits about their mean, and that mean about ``M0``."""
        lane %= _LANES
        part = centred.permute(2, 1, 0).contiguous()
        self._products[lane, head].baddbmm_(part, part.transpose(1, 2))
        column = mean.T.contiguous().unsqueeze(2)
        self._means[lane, head].baddbmm_(column, column.transpose(1, 2), alpha=float(len(centred)))

    def state(self) -> dict[str, Tensor]:
        """Everything, to go on from."""
        return {"covariance/products": self._products, "covariance/means": self._means}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self._products.copy_(state["covariance/products"])
        self._means.copy_(state["covariance/means"])

    def reduce(self, world: World) -> None:
        """Add up the processes' sums, on the first one."""
        for total in (self._products, self._means):
            for part in world.gather({"part": total})[1:]:
                total += part["part"].to(total.device)

    def variance(
        self,
        labels: Int[Tensor, "image token"],
        position: Float[Tensor, "head token token"],
        clusters: int,
    ) -> Float[Tensor, "cluster head token"]:
        """Variance of ``n_k P`` of every edge over permutations of all images.

        Parameters
        ----------
        labels : Int[Tensor, "image token"]
            Of the images that were added.
        position : Float[Tensor, "head token token"]
            Their sum of ``A - M0``.
        """
        images = len(labels)
        flat = label_covariance(labels, clusters).flatten(1)
        heads, tokens = position.shape[:2]
        found = torch.zeros(clusters, heads, tokens, dtype=torch.float64)
        for head in range(heads):
            products = self._products[:, head].cpu().double().sum(0)
            products += self._means[:, head].cpu().double().sum(0)
            columns = position[head].double().T
            products -= columns.unsqueeze(2) * columns.unsqueeze(1) / max(images, 1)
            found[:, head] = flat @ products.flatten(1).T
        return found.clamp_(min=0.0) / max(images - 1, 1)


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
