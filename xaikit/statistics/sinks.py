"""Which destinations are no ordinary patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.tokens import cluster_names, token_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float
    from torch import Tensor

    from xaikit.artifacts.edges import EdgeKey
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
    """Each destination in words, such as ``class token``, ``register 1``, ``patch (2, 5)``."""
    if fit.destination == "cluster":
        return cluster_names(fit.space.clusters, fit.kinds)
    sinks = sink_tokens(fit.token_norms)
    names = [token_name(j, fit.prefix_kinds, fit.grid) for j in range(fit.tokens)]
    return [
        f"{name}, sink" if fit.prefix_tokens <= j < len(sinks) and sinks[j] else name
        for j, name in enumerate(names)
    ]


def words_of_edges(fit: Fit) -> Callable[[EdgeKey], dict[str, str]]:
    """The fields of a record that say in words what its edge joins."""
    sources = cluster_names(fit.space.clusters, fit.kinds)
    kinds, names = destination_kinds(fit), destination_names(fit)

    def words(key: EdgeKey) -> dict[str, str]:
        return {
            "src_name": sources[key.cluster],
            "dst_kind": kinds[key.destination],
            "dst_name": names[key.destination],
        }

    return words
