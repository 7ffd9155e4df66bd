"""Which destinations are no ordinary patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit

SINK_RATIO = 3.0
"""A token whose mean residual norm is so many times the median token's is called a sink."""


def sink_tokens(norms: Float[Tensor, "token"]) -> Bool[Tensor, "token"]:
    """High-norm tokens, which attract attention whatever they show.

    References
    ----------
    Darcet et al. (2024), Vision transformers need registers, ICLR.
    """
    if norms.numel() == 0:
        return torch.zeros_like(norms, dtype=torch.bool)
    return norms > SINK_RATIO * norms.median()


def destination_kinds(fit: Fit) -> list[str]:
    """``prefix``, ``sink`` or ``patch`` of each destination token, or ``cluster``."""
    if fit.destination == "cluster":
        return ["cluster"] * fit.prototypes.shape[2]
    sinks = sink_tokens(fit.token_norms)
    return [
        "prefix" if j < fit.prefix_tokens else "sink" if j < len(sinks) and sinks[j] else "patch"
        for j in range(fit.tokens)
    ]


def destination_names(fit: Fit) -> list[str]:
    """Each destination in words, such as ``CLS``, ``register 1``, ``patch (2, 5)``."""
    if fit.destination == "cluster":
        return [f"cluster {k}" for k in range(fit.prototypes.shape[2])]
    sinks = sink_tokens(fit.token_norms)
    names = []
    for j in range(fit.tokens):
        if j < fit.prefix_tokens:
            names.append("CLS" if j == 0 else f"register {j}")
            continue
        place = divmod(j - fit.prefix_tokens, fit.grid[1]) if len(fit.grid) == 2 else None
        name = f"patch ({place[0]}, {place[1]})" if place else f"token {j}"
        names.append(f"{name}, sink" if j < len(sinks) and sinks[j] else name)
    return names
