"""The edits that curves, single edges and whole clusters are measured with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from xaikit.interventions.covers import Order, spread
from xaikit.interventions.edits import overwrite
from xaikit.interventions.live import LiveBatch, Patch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from xaikit.towers import Edit


def order_masks(
    batch: LiveBatch, order: Order, shares: Sequence[float], mode: str = "remove"
) -> Iterator[Bool[Tensor, "image head token token"]]:
    """Entries of the first edges of an order (``remove``), or all others (``keep``).

    The order's table is looked up once; each share is then one comparison.
    """
    table = order.positions.to(batch.labels.device)
    positions = spread(table, batch.labels, order.destination) + batch.jitter
    for share in shares:
        inside = positions < order.threshold(share)
        yield inside if mode == "remove" else ~inside


def order_patch(order: Order, shares: Sequence[float], mode: str = "remove") -> Patch:
    """Ablate the first edges of an order, at several shares of the entries.

    Parameters
    ----------
    mode : str
        ``remove`` ablates the first edges, ``keep`` all the others.
    """

    def edits(batch: LiveBatch) -> Iterator[Edit]:
        return map(batch.ablation, order_masks(batch, order, shares, mode))

    return Patch(size=len(shares), edits=edits)


def set_patch(
    table: Bool[Tensor, "cluster head destination"], destination: str, *, keep: bool = False
) -> Patch:
    """Ablate one set of edges, or with `keep` everything else."""

    def edits(batch: LiveBatch) -> Iterator[Edit]:
        inside = spread(table.to(batch.labels.device), batch.labels, destination)
        yield batch.ablation(~inside if keep else inside)

    return Patch(size=1, edits=edits)


def full_patch() -> Patch:
    """Ablate every entry."""

    def edits(batch: LiveBatch) -> Iterator[Edit]:
        heads = batch.live.shape[1]
        images, tokens = batch.labels.shape
        yield batch.ablation(batch.labels.new_ones(images, heads, tokens, tokens).bool())

    return Patch(size=1, edits=edits)


def edges_patch(edges: Sequence[tuple[int, int, int]], destination: str) -> Patch:
    """Ablate single edges ``(cluster, head, destination)``, one after the other."""

    def edits(batch: LiveBatch) -> Iterator[Edit]:
        heads = batch.live.shape[1]
        images, tokens = batch.labels.shape
        blank = torch.zeros(
            images, heads, tokens, tokens, dtype=torch.bool, device=batch.labels.device
        )
        for cluster, head, goal in edges:
            rows = (batch.labels == cluster).unsqueeze(2)
            mask = blank.clone()
            if destination == "cluster":
                mask[:, head] = rows & (batch.labels == goal).unsqueeze(1)
            else:
                mask[:, head, :, goal] = rows.squeeze(2)
            yield batch.ablation(mask)

    return Patch(size=len(edges), edits=edits)


def ablation_patch(clusters: Sequence[int]) -> Patch:
    """Ablate all logits of the rows of one cluster, cluster by cluster."""

    def edits(batch: LiveBatch) -> Iterator[Edit]:
        heads, tokens = batch.live.shape[1], batch.labels.shape[1]
        for cluster in clusters:
            rows = (batch.labels == cluster)[:, None, :, None]
            yield batch.ablation(rows.expand(-1, heads, -1, tokens))

    return Patch(size=len(clusters), edits=edits)


def injection_patch(
    clusters: Sequence[int], prototypes: Float[Tensor, "cluster head destination"]
) -> Patch:
    """Give every row outside a cluster the cluster's prototype, cluster by cluster."""

    def edits(batch: LiveBatch) -> Iterator[Edit]:
        given = prototypes.to(batch.labels.device)
        for cluster in clusters:
            others = (batch.labels != cluster)[:, None, :, None]
            values = given[cluster]
            if batch.live.destination == "cluster":
                values = values[:, batch.labels].transpose(0, 1)
            else:
                values = values.unsqueeze(0)
            yield overwrite(others, values.unsqueeze(2))

    return Patch(size=len(clusters), edits=edits)
