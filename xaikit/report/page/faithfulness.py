"""Removal and keep curves, baselines and the state of the tests, as the page draws them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.results import Intervention
from xaikit.report.curves import IN_NUMBERS, METRICS, as_drawn, curve_name
from xaikit.report.directions import direction
from xaikit.report.live import chosen_metric
from xaikit.report.page.parts import LayerParts, RunParts

if TYPE_CHECKING:
    from xaikit.artifacts.explanation import Explanation

FIGURES = ("area_log", "area_linear", "cpr", "cmd", "cpr_log", "cmd_log")


def measured(run: RunParts) -> list[dict[str, Any]]:
    """Each intervention of the run: all layers together first, then layer by layer."""
    found = []
    if run.intervention is not None:
        found += _records("all layers together", run.intervention)
    for parts in run.layers:
        if parts.intervention is not None:
            found += _records(f"layer {parts.layer} → {parts.fit.next_layer}", parts.intervention)
    return found


def _records(title: str, live: Intervention) -> list[dict[str, Any]]:
    """One record for each ablation, the intervention's own first."""
    ablations = dict.fromkeys([live.ablation, *(c["ablation"] for c in live.curves)])
    return [_record(title, live, ablation) for ablation in ablations]


def _record(title: str, live: Intervention, ablation: str) -> dict[str, Any]:
    curves = [curve for curve in live.curves if curve["ablation"] == ablation]
    bands = [band for band in live.random if band.get("ablation", ablation) == ablation]
    measured_on = {curve["metric"]: None for curve in curves}
    # What the run was judged by comes first.
    metrics = sorted(measured_on, key=lambda metric: metric != chosen_metric(live))
    own = ablation == live.ablation
    return {
        "title": title if own else f"{title}, {ablation} ablation",
        "images": live.num_images,
        "heldout": live.heldout,
        "ablation": ablation,
        "full": live.full_effect if own else live.full_effects.get(ablation, {}),
        "metrics": metric_words(metrics, live),
        "objective": direction(live) if chosen_metric(live) == IN_NUMBERS else None,
        "curves": [curve_record(curve, live) for curve in curves],
        "random": [band_record(record, live) for record in bands],
        "completeness": (live.completeness or None) if own else None,
        "agreement": live.agreement or None,
        "chance": (live.chance or None) if own else None,
    }


def metric_words(metrics: Iterable[str], found: Intervention | Explanation) -> dict[str, str]:
    """What each metric is called; a direction is named."""
    own = {**METRICS, IN_NUMBERS: f"fall of {direction(found)}"}
    return {metric: own.get(metric, metric) for metric in metrics}


def curve_record(curve: dict[str, Any], of: Intervention | Explanation) -> dict[str, Any]:
    """A curve as the page's scripts draw it."""
    kept = ("ranking", "mode", "metric", "shares", "edges", "fractions", *_figures(curve))
    found = as_drawn(curve, of)
    return {**{key: found[key] for key in kept if key in found}, "name": curve_name(curve)}


def band_record(record: dict[str, Any], of: Intervention | Explanation) -> dict[str, Any]:
    """A band of random edge sets as the page's scripts draw it."""
    kept = ("mode", "metric", "shares", "fractions", "draws", *_figures(record), "low", "high")
    found = as_drawn(record, of)
    return {key: found[key] for key in kept if key in found}


def _figures(record: dict[str, Any]) -> tuple[str, ...]:
    """Figures of a curve; those that are made of shares alone are none of a direction's."""
    return FIGURES if record["metric"] != IN_NUMBERS else FIGURES[:2]


def baselines(run: RunParts) -> list[dict[str, Any]]:
    """What the clusters explain beside controls that know nothing of the image."""
    return [_baseline(parts) for parts in run.layers]


def _baseline(parts: LayerParts) -> dict[str, Any]:
    fit = parts.fit
    scores = fit.heldout_r2 or {
        name: getattr(fit, name) for name in ("r2", "r2_mean", "r2_position", "r2_position_cluster")
    }
    rows = [
        ("mean of all rows", scores["r2_mean"]),
        ("position only", scores["r2_position"]),
        ("position and cluster", scores["r2_position_cluster"]),
        ("cluster prototypes alone", scores["r2"]),
    ]
    names = {
        "shuffled_added": "added by clusters, images shuffled",
        "position_added": "added by k-means of positions",
        "random_weights_added": "added in a model of random weights",
    }
    added = scores["r2_position_cluster"] - scores["r2_position"]
    extra = [("added by clusters", added)]
    extra += [(text, fit.controls[key]) for key, text in names.items() if key in fit.controls]
    return {
        "title": f"layer {parts.layer} → {fit.next_layer}",
        "where": "held-out images" if fit.heldout_r2 else "the same images",
        "rows": rows,
        "added": extra,
        "null": fit.null,
        "tests": fit.num_test_images,
    }
