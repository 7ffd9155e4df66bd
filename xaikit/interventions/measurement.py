"""One pass over the test images, and an artefact's fields from what it measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from xaikit.interventions.chance import chance_patches, chance_record
from xaikit.interventions.covers import EdgeSet, Order, cover_share
from xaikit.interventions.curves import Plan, fractions_of
from xaikit.interventions.live import Live, Patch
from xaikit.interventions.nodes import (
    agreement,
    node_patches,
    node_records,
    present_clusters,
    spearman,
)
from xaikit.interventions.patches import full_patch, order_patch, sets_patch
from xaikit.interventions.targets import EdgeTargets
from xaikit.progress import Progress, silent
from xaikit.statistics.multiple import permutation_pvalues

if TYPE_CHECKING:
    from torch import Tensor


class Measurement:
    """Curves, bands, single edges, whole clusters and one set of edges, in one pass.

    Parameters
    ----------
    live : Live
    plan : Plan
        Curves and bands.
    edges : EdgeTargets
        Single edges.
    circuit : EdgeSet, optional
        Measured as one set, against random sets of the same cover.
    nodes : bool
        Ablate and inject whole clusters.
    """

    def __init__(
        self,
        live: Live,
        plan: Plan,
        edges: EdgeTargets,
        circuit: EdgeSet | None = None,
        *,
        nodes: bool = True,
    ) -> None:
        self.live, self.plan, self.edges, self.circuit = live, plan, edges, circuit
        self.nodes = present_clusters(live) if nodes else []

    def patches(self) -> dict[str, list[Patch]]:
        """All that is measured, by purpose."""
        live, plan = self.live, self.plan
        chance = plan.orders if "remove" in plan.modes else []
        return {
            "full": [full_patch(live.shapes)],
            "curves": plan.patches(live),
            "chance": chance_patches(live, chance, plan.draws, plan.seed) if chance else [],
            "edges": self.edges.patches(live),
            "nodes": node_patches(live, self.nodes) if self.nodes else [],
            "circuit": self._circuit_patches(),
        }

    def _circuit_patches(self) -> list[Patch]:
        if self.circuit is None:
            return []
        share = cover_share(self.circuit, self.live.counts)
        random = self.plan.random_orders(self.live)
        return [
            sets_patch([self.circuit]),
            sets_patch([self.circuit], keep=True),
            *(order_patch(order, [share]) for order in random),
        ]

    def fields(self, progress: Progress = silent) -> dict[str, Any]:
        """Run everything once and put it into the artefact's fields."""
        patches, live = self.patches(), self.live
        flat = [patch for group in patches.values() for patch in group]
        measured = iter(live.measure(flat, progress))
        found = {name: [next(measured) for _ in group] for name, group in patches.items()}
        full = means(found["full"][0])
        curves, bands = self.plan.records(live, found["curves"], full)
        effects = self.edges.measured(live, found["edges"])
        nodes = node_records(live, self.nodes, found["nodes"]) if self.nodes else []
        agreeing = agreement(nodes)
        agreeing["edges"] = spearman(
            [effect.edge_effect for effect in effects],
            [effect.live_effect or 0.0 for effect in effects],
        )
        return {
            "full_effect": full,
            "curves": curves,
            "random": bands,
            "effects": effects,
            "clusters": nodes,
            "agreement": agreeing,
            "completeness": self._completeness(found["circuit"], full),
            "chance": chance_record(live, self.plan.orders, found["chance"]),
        }

    def _completeness(
        self, measured: Sequence[dict[str, Tensor]], full: dict[str, float]
    ) -> dict[str, Any]:
        """What a circuit alone breaks and holds, as shares of the full effect."""
        if self.circuit is None:
            return {}
        metric = self.live.objective.metric
        removed, kept, *random = [float(found[metric].mean()) for found in measured]
        whole = full[metric]
        shares = fractions_of([removed, kept, *random], whole)
        drawn = torch.tensor(shares[2:], dtype=torch.float64)
        observed = torch.tensor(shares[:1], dtype=torch.float64)
        return {
            "edges": sum(int(table.sum()) for table in self.circuit.tables),
            "share": cover_share(self.circuit, self.live.counts),
            "removed": shares[0],
            "kept": shares[1],
            "completeness": shares[0],
            "faithfulness": 1.0 - shares[1] if whole else 0.0,
            "random_mean": float(drawn.mean()) if len(drawn) else None,
            "random_high": float(drawn.max()) if len(drawn) else None,
            "pvalue": float(permutation_pvalues(observed, drawn[:, None])[0]),
        }


def means(found: dict[str, Tensor]) -> dict[str, float]:
    """Mean change over the images, by metric."""
    return {metric: float(values.mean()) for metric, values in found.items()}


def curves_alone(
    live: Live, orders: list[Order], plan: Plan, progress: Progress = silent
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Full effect and curves under another ablation, without bands."""
    bare = Plan(
        orders=orders, modes=plan.modes, shares=plan.shares, band_shares=(), draws=0, seed=plan.seed
    )
    full, *measured = live.measure([full_patch(live.shapes), *bare.patches(live)], progress)
    return means(full), bare.records(live, measured, means(full))[0]
