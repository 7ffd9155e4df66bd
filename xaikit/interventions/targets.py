"""Which single edges are tested, and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xaikit.artifacts.edges import Edge, EdgeKey
from xaikit.artifacts.results import Circuit, EdgeEffect, TargetCausal
from xaikit.errors import UsageError
from xaikit.interventions.covers import EdgeSet, Order, SiteEdge, edge_set
from xaikit.interventions.curve_options import CurveOptions
from xaikit.interventions.edges import EdgeComparison, compare_edges
from xaikit.interventions.live import Live, Patch
from xaikit.statistics.multiple import number
from xaikit.statistics.sinks import words_of_edges

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class EdgeTargets:
    """Single edges to test live.

    Attributes
    ----------
    keys : list of SiteEdge
    effects : list of EdgeEffect
        Their records, to which the live effects are added.
    comparison : EdgeComparison, optional
        With random edges; None where there is no edge to test.
    """

    keys: list[SiteEdge]
    effects: list[EdgeEffect]
    comparison: EdgeComparison | None = None

    def patches(self, live: Live) -> list[Patch]:
        """What to measure."""
        return self.comparison.patches(live) if self.comparison else []

    def measured(self, live: Live, found: Sequence[dict[str, Tensor]]) -> list[EdgeEffect]:
        """The records with live effects, p- and q-values."""
        if self.comparison is None:
            return []
        columns = self.comparison.results(live, found)
        # Guided clusters without held-out images have seen what they would be tested on.
        tested = all(site.fit.testable for site in live.sites)
        return [
            replace(
                record,
                live_effect=effect,
                live_pvalue=p if tested else None,
                live_qvalue=q if tested else None,
            )
            for record, effect, p, q in zip(self.effects, *columns, strict=True)
        ]


def edge_targets(
    live: Live,
    circuit: Circuit | None,
    target: TargetCausal | None,
    order: Order,
    options: CurveOptions,
) -> EdgeTargets:
    """The first ``options.edges`` edges of `target`, else of the circuit, else of the order.

    Those of `target` come as the circuit ranks them, where it has them: its first edges are what
    is looked at first.
    """
    count = options.edges
    ranked = circuit_keys(live, circuit) if circuit else []
    effects = list(target.effects) if target is not None else []
    places = {key: place for place, key in enumerate(ranked)}
    effects.sort(key=lambda each: places.get(record_key(live, each), len(places)))
    effects = effects[:count]
    keys = [record_key(live, effect) for effect in effects]
    if target is None:
        keys = ranked[:count] or order.keys(0, count)
        effects = [_bare_effect(live, key) for key in keys]
    if not keys:
        return EdgeTargets(keys=[], effects=[])
    comparison = compare_edges(live, keys, options.edge_draws, options.seed)
    return EdgeTargets(keys=keys, effects=effects, comparison=comparison)


def circuit_keys(live: Live, circuit: Circuit) -> list[SiteEdge]:
    """A circuit's edges, by where they are in the edited layers' tables."""
    return [record_key(live, edge) for edge in circuit.paths]


def circuit_set(live: Live, circuit: Circuit | None) -> EdgeSet | None:
    """A circuit's edges as one set; None where there are none."""
    keys = circuit_keys(live, circuit) if circuit else []
    return edge_set(keys, live.shapes) if keys else None


def record_key(live: Live, record: Edge | EdgeEffect) -> SiteEdge:
    """Where a record's edge is; a record without a layer is of the only one.

    Raises
    ------
    UsageError
        If the record's layer is not among those that are edited.
    """
    sites = {site.fit.layer: place for place, site in enumerate(live.sites)}
    layer = live.sites[0].fit.layer if record.layer is None else record.layer
    if layer not in sites or (record.layer is None and len(sites) > 1):
        known = ", ".join(map(str, sites))
        raise UsageError(f"an edge of layer {record.layer} was given; edited are layers {known}")
    return (sites[layer], *record.key)


def _bare_effect(live: Live, edge: SiteEdge) -> EdgeEffect:
    fit, key = live.sites[edge[0]].fit, EdgeKey(*edge[1:])
    return EdgeEffect(
        **fit.space.fields(key),  # type: ignore[arg-type]
        **words_of_edges(fit)(key),  # type: ignore[arg-type]
        layer=fit.layer if len(live.sites) > 1 else None,
        next_layer=fit.next_layer if len(live.sites) > 1 else None,
        support=int(fit.support[key.cluster, key.destination]),
        edge_effect=abs(float(fit.prototypes[key])),
        edge_pvalue=number(fit.edge_pvalues[key]),
        alignment_gain=None,
        alignment_pvalue=None,
        qvalue=number(fit.edge_qvalues[key]),
        testable=not bool(fit.untestable[key]),
    )
