"""Effects in prototype space, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def ablation_effects(
    prototypes: Float[Tensor, "*draw cluster head destination"],
) -> Float[Tensor, "*draw cluster"]:
    """Mean absolute change over a cluster's rows when its prototype is set to zero.

    Exactly ``mean_{h,j} |P[k,h,j]|``.
    """
    return prototypes.double().abs().mean((-2, -1))


def injection_effects(
    prototypes: Float[Tensor, "*draw cluster head destination"],
    counts: Float[Tensor, "cluster"],
) -> Float[Tensor, "*draw cluster"]:
    """Mean absolute change over the other rows when they are given a cluster's prototype.

    Exactly ``sum_{k'!=k} n_k' mean_{h,j} |P[k'] - P[k]| / sum_{k'!=k} n_k'``; 0 where a cluster
    holds every row.
    """
    flat = prototypes.double().flatten(-2)
    weights = counts.double()
    distances = torch.cdist(flat, flat, p=1.0) / flat.shape[-1]
    others = weights.sum() - weights
    total = (distances * weights).sum(-1)
    return torch.where(others > 0, total / others.clamp(min=1.0), torch.zeros_like(total))
