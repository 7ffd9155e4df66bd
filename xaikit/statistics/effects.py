"""Effects in prototype space, in closed form.

A row's predicted logits have one value a destination token, so where destinations are clusters
each prototype counts as often as its entries (`pair_counts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def ablation_effects(
    prototypes: Float[Tensor, "*draw cluster head destination"],
    pair_counts: Float[Tensor, "cluster destination"] | None = None,
) -> Float[Tensor, "*draw cluster"]:
    """Mean absolute change over a cluster's rows when its prototype is set to zero.

    Exactly ``mean_{h,j} |P[k,h,j]|`` over heads and destination tokens.

    Parameters
    ----------
    pair_counts : Float[Tensor, "cluster destination"], optional
        Entries behind each prototype, where destinations are clusters.
    """
    sizes = prototypes.double().abs()
    if pair_counts is None:
        return sizes.mean((-2, -1))
    entries = pair_counts.double()
    return (sizes.mean(-2) * entries).sum(-1) / entries.sum(-1).clamp(min=1.0)


def injection_effects(
    prototypes: Float[Tensor, "*draw cluster head destination"],
    counts: Float[Tensor, "cluster"],
    pair_counts: Float[Tensor, "cluster destination"] | None = None,
) -> Float[Tensor, "*draw cluster"]:
    """Mean absolute change over the other rows when they are given a cluster's prototype.

    Exactly ``sum_{k'!=k} n_k' mean_{h,j} |P[k'] - P[k]| / sum_{k'!=k} n_k'``; 0 where a cluster
    holds every row.

    Parameters
    ----------
    counts : Float[Tensor, "cluster"]
        Rows of each cluster.
    pair_counts : Float[Tensor, "cluster destination"], optional
        Entries behind each prototype, where destinations are clusters.
    """
    values = prototypes.double()
    weights = counts.double()
    if pair_counts is None:
        flat = values.flatten(-2)
        distances = torch.cdist(flat, flat, p=1.0) / flat.shape[-1]
        total = (distances * weights).sum(-1)
    else:
        entries = pair_counts.double()
        weights = entries.sum(-1)
        total = torch.zeros(values.shape[:-2], dtype=torch.float64, device=values.device)
        for other in range(len(entries)):
            change = (values - values[..., other : other + 1, :, :]).abs().mean(-2)
            total += change @ entries[other]
    others = weights.sum() - weights
    return torch.where(others > 0, total / others.clamp(min=1.0), torch.zeros_like(total))
