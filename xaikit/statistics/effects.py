"""Effects in prototype space, in closed form.

A row's predicted logits have one value a destination token, so where destinations are clusters
each prototype counts as often as its entries (`pair_counts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Num
    from torch import Tensor

_CACHED = 1 << 16
"""Entries of a table that are sorted together."""


def ablation_effects(
    prototypes: Float[Tensor, "*draw cluster head destination"],
    pair_counts: Num[Tensor, "cluster destination"] | None = None,
) -> Float[Tensor, "*draw cluster"]:
    """Mean absolute change over a cluster's rows when its prototype is set to zero.

    Exactly ``mean_{h,j} |P[k,h,j]|`` over heads and destination tokens.

    Parameters
    ----------
    pair_counts : Num[Tensor, "cluster destination"], optional
        Entries behind each prototype, where destinations are clusters.
    """
    sizes = prototypes.double().abs()
    if pair_counts is None:
        return sizes.mean((-2, -1))
    entries = pair_counts.double()
    return (sizes.mean(-2) * entries).sum(-1) / entries.sum(-1).clamp(min=1.0)


def injection_effects(
    prototypes: Float[Tensor, "*draw cluster head destination"],
    counts: Num[Tensor, "cluster"],
    pair_counts: Num[Tensor, "cluster destination"] | None = None,
) -> Float[Tensor, "*draw cluster"]:
    """Mean absolute change over the other rows when they are given a cluster's prototype.

    Exactly ``sum_{k'!=k} n_k' mean_{h,j} |P[k'] - P[k]| / sum_{k'!=k} n_k'``; 0 where a cluster
    holds every row.

    Parameters
    ----------
    counts : Num[Tensor, "cluster"]
        Rows of each cluster.
    pair_counts : Num[Tensor, "cluster destination"], optional
        Entries behind each prototype, where destinations are clusters.
    """
    values = prototypes.double()
    heads, width = values.shape[-2:]
    if pair_counts is None:
        rows = counts.double()
        total = _distances(values, rows[:, None, None]) / (heads * width)
    else:
        entries = pair_counts.double()
        rows = entries.sum(-1)
        total = _distances(values, entries[:, None, :]) / heads
    others = rows.sum() - rows
    return torch.where(others > 0, total / others.clamp(min=1.0), torch.zeros_like(total))


def _distances(
    values: Float[Tensor, "*draw cluster head destination"],
    weights: Float[Tensor, "cluster one destination_or_one"],
) -> Float[Tensor, "*draw cluster"]:
    """``sum_{h,j} sum_k' w[k', j] |x[k', h, j] - x[k, h, j]|``, by sorting the clusters' axis.

    Takes ``K log K`` steps in place of ``K^2``, some heads at a time so that the processor's
    cache holds them.
    """
    clusters, heads, width = values.shape[-3:]
    some = max(1, _CACHED // (clusters * width))
    total = torch.zeros(values.shape[:-2], dtype=values.dtype, device=values.device)
    for first in range(0, heads, some):
        # Sorting contiguous rows is several times as fast, and NumPy sorts them faster than torch.
        columns = values[..., first : first + some, :].movedim(-3, -1).contiguous()
        order = torch.from_numpy(np.argsort(columns.cpu().numpy(), axis=-1)).to(columns.device)
        ordered = columns.gather(-1, order)
        mine = weights.movedim(-3, -1).expand(columns.shape).gather(-1, order)
        below, mass = mine.cumsum(-1), (mine * ordered).cumsum(-1)
        found = ordered * (2.0 * below - below[..., -1:]) + mass[..., -1:] - 2.0 * mass
        total += columns.scatter_(-1, order, found).sum((-3, -2))
    return total
