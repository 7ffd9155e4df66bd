"""Whole clusters, live, and how far the effects in prototype space agree with what happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.interventions.live import Live, Patch
from xaikit.interventions.metrics import COSINE
from xaikit.interventions.patches import ablation_patch, injection_patch
from xaikit.statistics.effects import ablation_effects, injection_effects

if TYPE_CHECKING:
    from torch import Tensor


def present_clusters(live: Live) -> list[int]:
    """Clusters with rows among the discovery images and among the images that are run."""
    rows = np.bincount(live.labels.reshape(-1).numpy(), minlength=live.clusters)
    return [k for k in range(live.clusters) if rows[k] and int(live.fit.counts[k])]


def node_patches(live: Live, clusters: Sequence[int]) -> list[Patch]:
    """Ablate each cluster's rows; give each cluster's prototype to all other rows."""
    return [ablation_patch(clusters), injection_patch(clusters, live.fit.prototypes)]


def node_records(
    live: Live, clusters: Sequence[int], measured: Sequence[dict[str, Tensor]]
) -> list[dict[str, Any]]:
    """One record a cluster: effects in prototype space and live, and the latter a row.

    ``live_ablation`` and ``live_injection`` are mean ``1 − cos``; ``*_per_row`` divide by the
    mean number of rows that the intervention changes in an image, since the effects in prototype
    space are means over rows.
    """
    fit = live.fit
    ablation = ablation_effects(fit.prototypes, fit.pair_counts)
    injection = injection_effects(fit.prototypes, fit.counts, fit.pair_counts)
    members = np.bincount(live.labels.reshape(-1).numpy(), minlength=live.clusters)
    rows = members / len(live.images)
    tokens = live.labels.shape[1]
    live_effects = [found[COSINE].mean(1).tolist() for found in measured]
    return [
        {
            "cluster_id": k,
            "support": int(fit.counts[k]),
            "ablation_effect": float(ablation[k]),
            "injection_effect": float(injection[k]),
            "live_ablation": live_effects[0][place],
            "live_injection": live_effects[1][place],
            "live_ablation_per_row": live_effects[0][place] / float(rows[k]),
            "live_injection_per_row": live_effects[1][place] / max(tokens - float(rows[k]), 1e-9),
        }
        for place, k in enumerate(clusters)
    ]


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
    x, y = _ranks(np.asarray(left)), _ranks(np.asarray(right))
    if x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[:, None] > values[None, :]).sum(1)
    same = (values[:, None] == values[None, :]).sum(1)
    return below + (same - 1) / 2
