"""Which single edges are tested, and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xaikit.artifacts.edges import EdgeKey, EdgeSpace
from xaikit.artifacts.results import Circuit, EdgeEffect, TargetCausal
from xaikit.artifacts.tensors import Fit
from xaikit.interventions.covers import Order
from xaikit.interventions.edges import EdgeComparison, compare_edges
from xaikit.interventions.live import Live, Patch
from xaikit.statistics.sinks import destination_kinds

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class EdgeTargets:
    """Single edges to test live.

    Attributes
    ----------
    keys : list of (cluster, head, destination)
    effects : list of EdgeEffect
        Their records, to which the live effects are added.
    comparison : EdgeComparison, optional
        With random edges; None where there is no edge to test.
    """

    keys: list[EdgeKey]
    effects: list[EdgeEffect]
    comparison: EdgeComparison | None = None

    def patches(self, live: Live) -> list[Patch]:
        """What to measure."""
        return self.comparison.patches(live) if self.comparison else []

    def measured(self, found: Sequence[dict[str, Tensor]]) -> list[EdgeEffect]:
        """The records with live effects, p- and q-values."""
        if self.comparison is None:
            return []
        columns = self.comparison.results(found)
        return [
            replace(effect, live_effect=live, live_pvalue=p, live_qvalue=q)
            for effect, live, p, q in zip(self.effects, *columns, strict=True)
        ]


def edge_targets(
    live: Live,
    fit: Fit,
    circuit: Circuit | None,
    target: TargetCausal | None,
    order: Order,
    *,
    count: int,
    draws: int,
    seed: int,
) -> EdgeTargets:
    """The first `count` edges of `target`, else of the circuit, else of the order."""
    effects = list(target.effects[:count]) if target is not None else []
    if target is None:
        keys = circuit_keys(circuit)[:count] if circuit else []
        keys = keys or _first_edges(order, count)
        effects = [_bare_effect(fit, key) for key in keys]
    keys = [effect.key for effect in effects]
    if not keys:
        return EdgeTargets(keys=[], effects=[])
    comparison = compare_edges(live, keys, draws, seed)
    return EdgeTargets(keys=keys, effects=effects, comparison=comparison)


def _first_edges(order: Order, count: int) -> list[EdgeKey]:
    places = order.positions.reshape(-1).argsort()[:count].tolist()
    clusters, heads, width = order.positions.shape
    space = EdgeSpace(clusters=clusters, heads=heads, width=width)
    return [space.key(place) for place in places]


def circuit_keys(circuit: Circuit) -> list[EdgeKey]:
    """A circuit's edges as (cluster, head, destination)."""
    return [edge.key for edge in circuit.paths]


def _bare_effect(fit: Fit, key: EdgeKey) -> EdgeEffect:
    return EdgeEffect(
        **fit.space.fields(key),  # type: ignore[arg-type]
        support=int(fit.support[key.cluster, key.destination]),
        edge_effect=abs(float(fit.prototypes[key])),
        edge_pvalue=float(fit.edge_pvalues[key]),
        alignment_gain=None,
        alignment_pvalue=None,
        qvalue=float(fit.edge_qvalues[key]),
        dst_kind=destination_kinds(fit)[key.destination],
    )
