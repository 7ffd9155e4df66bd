"""Removal and keep curves, baselines and the state of the tests, as the page draws them."""

from __future__ import annotations

from typing import Any

from xaikit.report.curves import METRICS, band_fractions
from xaikit.report.page.parts import LayerParts, RunParts

FIGURES = ("area_log", "area_linear", "cpr", "cmd", "cpr_log", "cmd_log")


def measured(run: RunParts) -> list[dict[str, Any]]:
    """Each intervention of the run: all layers together first, then layer by layer."""
    found = []
    if run.intervention is not None:
        found.append(_record("all layers together", run.intervention))
    for parts in run.layers:
        if parts.intervention is not None:
            title = f"layer {parts.layer} → {parts.fit.next_layer}"
            found.append(_record(title, parts.intervention.to_dict()))
    return found


def _record(title: str, live: dict[str, Any]) -> dict[str, Any]:
    metrics = dict.fromkeys(curve["metric"] for curve in live["curves"])
    return {
        "title": title,
        "images": live.get("num_images", 0),
        "heldout": live.get("heldout", False),
        "ablation": live.get("ablation", "mean"),
        "full": live["full_effect"],
        "metrics": {metric: METRICS.get(metric, metric) for metric in metrics},
        "curves": [_curve(curve) for curve in live["curves"]],
        "random": [_band(record) for record in live["random"]],
        "completeness": live.get("completeness") or None,
        "agreement": live.get("agreement") or None,
    }


def _curve(curve: dict[str, Any]) -> dict[str, Any]:
    kept = ("ranking", "mode", "metric", "shares", "edges", "fractions", *FIGURES)
    return {key: curve[key] for key in kept if key in curve}


def _band(record: dict[str, Any]) -> dict[str, Any]:
    low, high = band_fractions(record)
    kept = ("mode", "metric", "shares", "fractions", "draws", *FIGURES)
    return {**{key: record[key] for key in kept if key in record}, "low": low, "high": high}


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
