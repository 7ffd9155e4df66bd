"""Scores known with an error, drawn toward what their cluster, head and destination say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_ROUNDS = 15
"""The two margins of a table without gaps are found in one; a few gaps take a few more."""

_ROUNDING = 1e-5
"""Of a head's largest score: what float32 leaves of nothing."""


def toward_margins(
    scores: Float[Tensor, "cluster head destination"],
    errors: Float[Tensor, "cluster head destination"],
) -> Float[Tensor, "cluster head destination"]:
    """Weigh each score against the product of its margins, by how sure either is.

    Of a logarithm ``x = a(cluster, head) + b(head, destination) + rest``, `rest` varies by more
    than its error explains: by `t`, of each head. What is kept of it is ``t / (t + error)``, the
    mean of `x` and its margins that has the least squared error (James and Stein's shrinkage).

    Parameters
    ----------
    scores : Tensor
        None below 0; those that are 0, or rounding beside their head's largest, stay, and no
        other learns from them.
    errors : Tensor
        Their error variances; scores without any stay as they are.

    References
    ----------
    Efron and Morris (1973), Stein's estimation rule and its competitors - an empirical Bayes
    approach, J. Am. Stat. Assoc. 68.
    """
    there = scores > _ROUNDING * scores.amax((0, 2), keepdim=True)
    known = there.to(scores.dtype)
    logs = torch.where(there, scores, 1.0).log()
    error = torch.where(there, errors / torch.where(there, scores, 1.0).square(), 0.0)
    rows, columns = known.sum(2, keepdim=True), known.sum(0, keepdim=True)
    margins = torch.zeros_like(logs)
    for _ in range(_ROUNDS):
        for axis, count in ((2, rows), (0, columns)):
            rest = ((logs - margins) * known).sum(axis, keepdim=True)
            margins = margins + rest / count.clamp(min=1.0)
    count = known.sum((0, 2), keepdim=True).clamp(min=1.0)
    fitted = (rows > 0).sum((0, 2), keepdim=True) + (columns > 0).sum((0, 2), keepdim=True) - 1
    rest = (logs - margins) * known
    spread = rest.square().sum((0, 2), keepdim=True) / (count - fitted).clamp(min=1.0)
    real = (spread - error.sum((0, 2), keepdim=True) / count).clamp(min=0.0)
    # Where nothing is left to tell real from error, as in a table of one row, a score stays.
    moved = there & (error > 0) & (count > fitted)
    kept = real / (real + error)
    return torch.where(moved, (margins + kept * rest).exp(), scores)
