"""Editing attention in the real forward pass, and measuring what it does."""

from __future__ import annotations

from xaikit.interventions.covers import (
    Order,
    cover_share,
    edge_table,
    entry_counts,
    order_edges,
    random_order,
    spread,
)
from xaikit.interventions.curves import (
    BAND_SHARES,
    MODES,
    SHARES,
    Plan,
    area_linear,
    area_log,
    check_shares,
    fractions_of,
)
from xaikit.interventions.edits import ABLATIONS, ablate, check_ablation, derangement, overwrite
from xaikit.interventions.live import Live, LiveBatch, LiveOptions, Patch
from xaikit.interventions.matching import check_tower
from xaikit.interventions.metrics import Classifier, changes, class_changes, cosine_distance
from xaikit.interventions.patches import (
    ablation_patch,
    edges_patch,
    full_patch,
    injection_patch,
    order_masks,
    order_patch,
    set_patch,
)

__all__ = [
    "ABLATIONS",
    "BAND_SHARES",
    "MODES",
    "SHARES",
    "Classifier",
    "Live",
    "LiveBatch",
    "LiveOptions",
    "Order",
    "Patch",
    "Plan",
    "ablate",
    "ablation_patch",
    "area_linear",
    "area_log",
    "changes",
    "check_ablation",
    "check_shares",
    "check_tower",
    "class_changes",
    "cosine_distance",
    "cover_share",
    "derangement",
    "edge_table",
    "edges_patch",
    "entry_counts",
    "fractions_of",
    "full_patch",
    "injection_patch",
    "order_edges",
    "order_masks",
    "order_patch",
    "overwrite",
    "random_order",
    "set_patch",
    "spread",
]
