"""The best edges of a fit, or of several together, as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.edges import Edge
from xaikit.interventions.covers import Order, order_edges
from xaikit.rankings import ranking
from xaikit.statistics.multiple import number
from xaikit.statistics.sinks import words_of_edges
from xaikit.statistics.totals import as_float64

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions import Live


def orders_of(
    key: str,
    scores: Sequence[Tensor],
    live: Live,
    *,
    support: Sequence[Tensor] | None = None,
    name: str = "",
) -> list[Order]:
    """A ranking's order on the images of `live`.

    Both ends of it where edges push for and against the objective.

    Parameters
    ----------
    support : sequence of Tensor, optional
        Entries ``[cluster, destination]`` behind the scores; by default those of the fits.
    name : str
        What the order is called, in place of the ranking's key.
    """
    sides = ("for", "against") if live.objective.signed and ranking(key).signed else ("",)
    behind = live.support if support is None else support
    return [order_edges(name or key, scores, live.counts, behind, side) for side in sides]


def ranked_edges(fit: Fit, scores: Tensor) -> Tensor:
    """Flat indices of edges with support, best score first, ties in index order."""
    support = fit.support[:, None, :].expand(fit.prototypes.shape).reshape(-1)
    order = torch.sort(as_float64(scores).reshape(-1), descending=True, stable=True).indices
    return order[support[order] > 0]


def edges_at(fit: Fit, scores: Tensor, flat: Tensor, effects: Tensor | None = None) -> list[Edge]:
    """Records of the edges at flat indices of ``[cluster, head, destination]``.

    Parameters
    ----------
    effects : Float[Tensor, "cluster head destination"], optional
        Signed effects of an objective, which say on whose side an edge is.
    """
    words = words_of_edges(fit)
    support, space, fixed = fit.support, fit.space, fit.untestable
    records = []
    for index in flat.tolist():
        key = k, h, j = space.key(index)
        records.append(
            Edge(
                **space.fields(key),  # type: ignore[arg-type]
                **words(key),  # type: ignore[arg-type]
                weight=float(fit.prototypes[k, h, j]),
                support=int(support[k, j]),
                score=float(scores[k, h, j]),
                contrast=float(fit.contrast[k, h, j]),
                zscore=number(fit.edge_zscores[k, h, j]),
                pvalue=number(fit.edge_pvalues[k, h, j]),
                qvalue=number(fit.edge_qvalues[k, h, j]),
                testable=not bool(fixed[k, h, j]),
                **({} if effects is None else _side(float(effects[k, h, j]))),
            )
        )
    return records


def _side(effect: float) -> dict[str, Any]:
    return {"effect": effect, "side": "for" if effect > 0 else "against"}


def joint_edges(
    fits: Sequence[Fit],
    scores: Sequence[Tensor],
    count: int,
    *,
    effects: Sequence[Tensor] | None = None,
    allowed: Sequence[Tensor] | None = None,
) -> list[Edge]:
    """Records of the best edges of several layers, best first; they name their layers.

    Parameters
    ----------
    fits : sequence of Fit
        Lowest layer first.
    scores : sequence of Float[Tensor, "cluster head destination"]
        One table a fit.
    count : int
    effects : sequence of Tensor, optional
        As in `edges_at`, a table a fit.
    allowed : sequence of Bool[Tensor, "cluster head destination"], optional
        The edges to choose from.
    """
    supports = [fit.support for fit in fits]
    if allowed is not None:
        scores = [
            torch.where(some, as_float64(score), -torch.inf)
            for some, score in zip(allowed, scores, strict=True)
        ]
    order = order_edges("joint", scores, supports, supports)
    records = []
    for site, *key in order.keys(0, count):
        fit, table = fits[site], scores[site]
        if not float(fit.support[key[0], key[2]]) or float(table[tuple(key)]) == -torch.inf:
            break
        signed = None if effects is None else effects[site]
        (record,) = edges_at(fit, table, torch.tensor([fit.space.flat(*key)]), signed)
        records.append(replace(record, layer=fit.layer, next_layer=fit.next_layer))
    return records
