"""The edits that curves, single edges and whole clusters are measured with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from xaikit.interventions.batch import Edits, LiveBatch
from xaikit.interventions.covers import EdgeSet, Order, Shape, SiteEdge, edge_set
from xaikit.interventions.edits import overwrite
from xaikit.interventions.live import Patch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def sets_patch(sets: Sequence[EdgeSet], *, keep: bool = False) -> Patch:
    """Ablate sets of edges, one after the other, or with `keep` everything else."""

    def edits(batch: LiveBatch) -> Iterator[Edits]:
        return (batch.ablation(edges, keep=keep) for edges in sets)

    return Patch(size=len(sets), edits=edits)


def order_patch(order: Order, shares: Sequence[float], mode: str = "remove") -> Patch:
    """Ablate the first edges of an order, at several shares of the entries.

    Parameters
    ----------
    mode : str
        ``remove`` ablates the first edges, ``keep`` all the others.
    """

    def edits(batch: LiveBatch) -> Iterator[Edits]:
        # Sets are made when they are needed: a table of every edge for every share of every
        # random order would be large.
        return (batch.ablation(order.set_of(share), keep=mode == "keep") for share in shares)

    return Patch(size=len(shares), edits=edits)


def full_patch(shapes: Sequence[Shape]) -> Patch:
    """Ablate every entry of every edited layer."""
    tables = tuple(torch.ones(shape, dtype=torch.bool) for shape in shapes)
    return sets_patch([EdgeSet(tables=tables)])


def edges_patch(edges: Sequence[SiteEdge], shapes: Sequence[Shape]) -> Patch:
    """Ablate single edges, one after the other."""

    def edits(batch: LiveBatch) -> Iterator[Edits]:
        return (batch.ablation(edge_set([edge], shapes)) for edge in edges)

    return Patch(size=len(edges), edits=edits)


def ablation_patch(nodes: Sequence[tuple[int, int]], shapes: Sequence[Shape]) -> Patch:
    """Ablate all logits of the rows of one cluster of one layer, ``(site, cluster)``, in turn."""
    sets = []
    for site, cluster in nodes:
        edges = edge_set([], shapes)
        edges.tables[site][cluster] = True
        sets.append(edges)
    return sets_patch(sets)


def injection_patch(
    nodes: Sequence[tuple[int, int]],
    prototypes: Sequence[Float[Tensor, "cluster head destination"]],
) -> Patch:
    """Give every row outside a cluster the cluster's prototype, in turn.

    Parameters
    ----------
    nodes : sequence of (site, cluster)
    prototypes : sequence of Tensor
        One table a site.
    """

    def edits(batch: LiveBatch) -> Iterator[Edits]:
        for site, cluster in nodes:
            part = batch.sites[site]
            others = (part.labels != cluster)[:, None, :, None]
            values = prototypes[site][cluster].to(part.labels.device)
            if part.site.destination == "cluster":
                values = values[:, part.labels].transpose(0, 1)
            else:
                values = values.unsqueeze(0)
            yield {part.layer: overwrite(others, values.unsqueeze(2))}

    return Patch(size=len(nodes), edits=edits)
