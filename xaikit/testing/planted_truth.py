"""What a perfect analysis of a planted tower would report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaikit.testing.planted_spec import (
    NOISE_RANK,
    ContentEdge,
    PlantedSpec,
    PlantedTables,
    Relay,
    TokenEdge,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int

    from xaikit.testing.planted_images import PlantedImages


@dataclass(frozen=True, kw_only=True)
class PlantedTruth:
    """Which edges of a clustering are planted.

    An edge of one kind has an echo in the other kind's picture: a content edge raises `P` at
    the tokens where its group is common, and a token edge raises `Q` at the groups common at
    its token. Echoes are real, so a score is judged by `edge` against neither edge nor echo.

    Attributes
    ----------
    cluster_groups : Tensor
        `[K]`, int64: the commonest true group in each cluster, −1 for an empty cluster.
    purity : float
        Share of tokens whose cluster's group is their own.
    edge_token, echo_token : Tensor
        `[K, H, N]`, bool: planted token edges, and cells that hold the echo of a content edge.
    edge_content, echo_content : Tensor
        `[K, H, K]`, bool: planted content edges, and cells that hold the echo of a token edge.
    """

    cluster_groups: Int[Tensor, "cluster"]
    purity: float
    edge_token: Bool[Tensor, "cluster head token"]
    echo_token: Bool[Tensor, "cluster head token"]
    edge_content: Bool[Tensor, "cluster head cluster"]
    echo_content: Bool[Tensor, "cluster head cluster"]


def planted_truth(
    spec: PlantedSpec,
    labels: Int[Tensor, "batch token"],
    groups: Int[Tensor, "batch token"],
    num_clusters: int,
    stage: int = 0,
) -> PlantedTruth:
    """Name each cluster by the commonest group in it and spread the planted edges over them."""
    table = torch.zeros(num_clusters, spec.groups + 1, dtype=torch.int64)
    pairs = (labels.flatten().long(), groups.flatten().long())
    table.index_put_(pairs, torch.ones((), dtype=torch.int64), accumulate=True)
    most, names = table.max(dim=1)
    names = torch.where(most > 0, names, -1)
    edge_token = torch.zeros(num_clusters, spec.heads, spec.tokens, dtype=torch.bool)
    edge_content = torch.zeros(num_clusters, spec.heads, num_clusters, dtype=torch.bool)
    token_edges, content_edges = edges_of(spec, stage)
    for edge in token_edges:
        edge_token[names == edge.group, edge.head, edge.dst_token] = True
    for goal in content_edges:
        ends = (names == goal.group)[:, None] & (names == goal.dst_group)[None, :]
        edge_content[:, goal.head] |= ends
    busy_token = _busy(token_edges, names, spec.heads)
    busy_content = _busy(content_edges, names, spec.heads)
    return PlantedTruth(
        cluster_groups=names,
        purity=float(most.sum() / table.sum().clamp(min=1)),
        edge_token=edge_token,
        echo_token=busy_content[:, :, None] & ~edge_token,
        edge_content=edge_content,
        echo_content=busy_token[:, :, None] & ~edge_content,
    )


def edges_of(
    spec: PlantedSpec, stage: int
) -> tuple[Sequence[TokenEdge], Sequence[ContentEdge | Relay]]:
    """Token and content edges of the first layer with edges, or of the second (the relays)."""
    return (spec.token_edges, spec.content_edges) if stage == 0 else ((), spec.relays)


def _busy(
    edges: Sequence[TokenEdge | ContentEdge | Relay], names: Tensor, heads: int
) -> Bool[Tensor, "cluster head"]:
    """Say which clusters are the source of an edge of one kind in which heads."""
    busy = torch.zeros(len(names), heads, dtype=torch.bool)
    for edge in edges:
        busy[names == edge.group, edge.head] = True
    return busy


def edge_logits(spec: PlantedSpec, stage: int = 0) -> tuple[Tensor, Tensor]:
    """Indicators of the edges by true group: `[H, G + 1, N]` and `[H, G + 1, G + 1]`, float32."""
    token = torch.zeros(spec.heads, spec.groups + 1, spec.tokens)
    content = torch.zeros(spec.heads, spec.groups + 1, spec.groups + 1)
    token_edges, content_edges = edges_of(spec, stage)
    for edge in token_edges:
        token[edge.head, edge.group, edge.dst_token] = 1
    for goal in content_edges:
        content[goal.head, goal.group, goal.dst_group] = 1
    return token, content


def planted_logits(
    spec: PlantedSpec, tables: PlantedTables, images: PlantedImages, stage: int = 0
) -> Float[Tensor, "batch head token token"]:
    """Write down the logits of a layer with edges from the truth, without the tower."""
    token, content = edge_logits(spec, stage)
    source = torch.nn.functional.one_hot(images.groups, spec.groups + 1).float()
    seen = (images.groups != spec.blank_group).float()
    logits = torch.einsum("big,hgj->bhij", source, token)
    logits += torch.einsum("big,hgk,bjk->bhij", source, content, source)
    logits *= spec.strength
    logits += spec.position * torch.einsum(
        "hir,hjr->hij", tables.position_query, tables.position_key
    )
    wash = torch.einsum("bf,hjf->bhj", images.factors, tables.image_key)
    logits += spec.image * seen[:, None, :, None] * wash[:, :, None, :]
    keys = torch.einsum("hrs,bjs->bhjr", tables.noise_mix, images.noise) + tables.noise_key
    scale = spec.noise / (2 * NOISE_RANK) ** 0.5
    logits += scale * torch.einsum("bir,bhjr->bhij", images.noise, keys)
    if spec.sink is not None:
        logits[..., spec.sink] += spec.sink_logit
    return logits
