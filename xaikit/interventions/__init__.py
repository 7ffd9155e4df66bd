"""Editing attention in the real forward pass, and measuring what it does."""

from __future__ import annotations

from xaikit.interventions.batch import Edits, LiveBatch
from xaikit.interventions.covers import (
    EdgeSet,
    Order,
    SiteEdge,
    cover_share,
    edge_set,
    entry_counts,
    order_edges,
    random_order,
    spread,
)
from xaikit.interventions.curve_options import CurveOptions
from xaikit.interventions.curves import (
    MODES,
    SHARES,
    Plan,
    area_linear,
    area_log,
    check_shares,
    fractions_of,
    keep_figures,
)
from xaikit.interventions.edits import ABLATIONS, ablate, check_ablation, derangement, overwrite
from xaikit.interventions.live import Live, Patch
from xaikit.interventions.live_options import LiveOptions, chosen_objective
from xaikit.interventions.matching import check_parts, check_tower, spread_evenly
from xaikit.interventions.measurement import Measurement, curves_alone
from xaikit.interventions.metrics import Classifier, changes, class_changes, cosine_distance
from xaikit.interventions.objectives import EMBEDDING, Objective, objective_for
from xaikit.interventions.patches import (
    ablation_patch,
    edges_patch,
    full_patch,
    injection_patch,
    order_patch,
    sets_patch,
)
from xaikit.interventions.targets import circuit_keys, circuit_set, edge_targets

__all__ = [
    "ABLATIONS",
    "EMBEDDING",
    "MODES",
    "SHARES",
    "Classifier",
    "CurveOptions",
    "EdgeSet",
    "Edits",
    "Live",
    "LiveBatch",
    "LiveOptions",
    "Measurement",
    "Objective",
    "Order",
    "Patch",
    "Plan",
    "SiteEdge",
    "ablate",
    "ablation_patch",
    "area_linear",
    "area_log",
    "changes",
    "check_ablation",
    "check_parts",
    "check_shares",
    "check_tower",
    "chosen_objective",
    "circuit_keys",
    "circuit_set",
    "class_changes",
    "cosine_distance",
    "cover_share",
    "curves_alone",
    "derangement",
    "edge_set",
    "edge_targets",
    "edges_patch",
    "entry_counts",
    "fractions_of",
    "full_patch",
    "injection_patch",
    "keep_figures",
    "objective_for",
    "order_edges",
    "order_patch",
    "overwrite",
    "random_order",
    "sets_patch",
    "spread",
    "spread_evenly",
]
