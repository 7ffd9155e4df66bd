"""Whole clusters, live, and how far the effects in prototype space agree with what happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from xaikit.interventions.live import Live, Patch
from xaikit.interventions.patches import ablation_patch, injection_patch
from xaikit.interventions.sites import Site
from xaikit.statistics.effects import ablation_effects, injection_effects

if TYPE_CHECKING:
    from torch import Tensor


def present_clusters(live: Live) -> list[tuple[int, int]]:
    """Clusters ``(site, cluster)`` with rows among the discovery images and the images run."""
    found = []
    for place, site in enumerate(live.sites):
        rows = np.bincount(site.labels.reshape(-1).numpy(), minlength=site.clusters)
        counts = site.fit.counts
        found += [(place, k) for k in range(site.clusters) if rows[k] and int(counts[k])]
    return found


def node_patches(live: Live, nodes: Sequence[tuple[int, int]]) -> list[Patch]:
    """Ablate each cluster's rows; give each cluster's prototype to all other rows."""
    prototypes = [site.fit.prototypes for site in live.sites]
    return [ablation_patch(nodes, live.shapes), injection_patch(nodes, prototypes)]


def node_records(
    live: Live, nodes: Sequence[tuple[int, int]], measured: Sequence[dict[str, Tensor]]
) -> list[dict[str, Any]]:
    """One record a cluster: effects in prototype space and live, and the latter a row.

    ``live_ablation`` and ``live_injection`` are mean effects on the objective; ``*_per_row``
    divide by the mean number of rows that the intervention changes in an image, since the effects
    in prototype space are means over rows. Where several layers are edited, records name theirs.
    """
    metric = live.objective.metric
    live_effects = [found[metric].mean(1).tolist() for found in measured]
    known = [_prototype_effects(site) for site in live.sites]
    records = []
    for place, (number, k) in enumerate(nodes):
        site, (ablation, injection, rows) = live.sites[number], known[number]
        ablated, injected = (effects[place] for effects in live_effects)
        others = site.labels.shape[1] - float(rows[k])
        records.append(
            {
                **(layer_names(site) if len(live.sites) > 1 else {}),
                "cluster_id": k,
                "support": int(site.fit.counts[k]),
                "ablation_effect": float(ablation[k]),
                "injection_effect": float(injection[k]),
                "live_ablation": ablated,
                "live_injection": injected,
                "live_ablation_per_row": ablated / float(rows[k]),
                "live_injection_per_row": injected / max(others, 1e-9),
            }
        )
    return records


def layer_names(site: Site) -> dict[str, int]:
    """What a record of one of several layers says of it."""
    return {"layer": site.fit.layer, "next_layer": site.layer}


def _prototype_effects(site: Site) -> tuple[Any, Any, np.ndarray]:
    """Effects of a site's clusters in prototype space, and their mean rows an image."""
    fit = site.fit
    members = np.bincount(site.labels.reshape(-1).numpy(), minlength=site.clusters)
    return (
        ablation_effects(fit.prototypes, fit.pair_counts),
        injection_effects(fit.prototypes, fit.counts, fit.pair_counts),
        members / len(site.labels),
    )


def agreement(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Spearman correlations over clusters of effects in prototype space with live ones.

    ``None`` where there are fewer than three clusters or one side is constant.
    """
    found: dict[str, Any] = {"clusters": len(records)}
    for kind in ("ablation", "injection"):
        prototype = [record[f"{kind}_effect"] for record in records]
        for suffix in ("", "_per_row"):
            happened = [record[f"live_{kind}{suffix}"] for record in records]
            found[f"{kind}{suffix}"] = spearman(prototype, happened)
    return found


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where it is not defined."""
    if len(left) < 3:
        return None
    # The correlation with a constant is not defined, and scipy warns of it.
    if len(set(left)) == 1 or len(set(right)) == 1:
        return None
    return float(spearmanr(left, right).statistic)
