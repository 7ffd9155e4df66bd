"""The summary that `run-all` ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.rule import Rule

from xaikit.report.live import exponent, intervene_fields, intervene_lines
from xaikit.report.summaries import (
    EDGE_COLUMNS,
    added,
    edge_row,
    fit_fields,
    fit_lines,
    probability,
    stability_lines,
    table,
)

if TYPE_CHECKING:
    from xaikit.run.layer import LayerRun

EDGES = 8


def run_fields(
    runs: Sequence[LayerRun], out_dir: Path, seconds: float, recipe: str = "evidence"
) -> dict[str, Any]:
    """The summary for scripts."""
    return {
        "recipe": recipe,
        "out_dir": str(out_dir),
        "seconds": seconds,
        "layers": [
            {
                "folder": str(run.folder),
                "layer": run.fit.layer,
                "next_layer": run.fit.next_layer,
                "images": len(run.info.images),
                "skipped": run.info.skipped_count,
                "clusters_used": int((run.features.cluster_sizes > 0).sum()),
                "r2_added": added(run.fit),
                **fit_fields(run.fit),
                "stability": run.circuit.stability,
                "intervene": intervene_fields(run.intervention) if run.intervention else None,
                "seconds": run.seconds,
                "reused": run.reused,
            }
            for run in runs
        ],
    }


def recipe_line(recipe: str, runs: Sequence[LayerRun]) -> str:
    """The recipe, and what it and the flags given by hand came to."""
    features, circuit = runs[0].features, runs[0].circuit
    held = len(features.heldout) / max(len(features.labels), 1)
    return (
        f"recipe {recipe}: {features.method} clusters, prefix {features.prefix}, ranked by "
        f"{circuit.rank}, edges to {circuit.destination}s, {held:.0%} of the images held out"
    )


def run_lines(
    runs: Sequence[LayerRun], out_dir: Path, seconds: float, recipe: str = "evidence"
) -> list[Any]:
    """The summary for people."""
    lines: list[Any] = [recipe_line(recipe, runs)]
    for run in runs:
        origin = run.fit.provenance.origin
        head = f"{origin.model}: gates of layer {run.fit.layer} → attention of {run.fit.next_layer}"
        used = int((run.features.cluster_sizes > 0).sum())
        lines += [
            Rule(head, align="left"),
            f"{len(run.info.images):,} images × {run.info.tokens} tokens, "
            f"{used} of {run.features.num_clusters} clusters used",
            *fit_lines(run.fit),
            *_edges(run),
            *stability_lines(run.circuit),
            *(intervene_lines(run.intervention) if run.intervention else []),
            _times(run),
        ]
    where = runs[0].folder if len(runs) == 1 else out_dir
    pictures = "heatmaps/ and overview.png" if runs[0].overview else "heatmaps/"
    lines.append(f"everything is in {where}/ (pictures: {pictures}), {seconds:.1f} s in all")
    return lines


def _edges(run: LayerRun) -> list[Any]:
    effects = {effect.key: effect for effect in run.target_causal.effects}
    live = run.intervention.effects if run.intervention else []
    measured = {effect.key: effect.live_effect for effect in live}
    rows = []
    for edge in run.circuit.paths[:EDGES]:
        effect = effects.get(edge.key)
        cells = ["", ""]
        if effect is not None:
            pvalue = probability(effect.edge_pvalue, testable=effect.testable)
            cells = [f"{effect.edge_effect:.3f}", pvalue]
        if live:
            cells.append(exponent(measured.get(edge.key)))
        rows.append([*edge_row(edge), *cells])
    if not rows:
        return ["the circuit is empty"]
    title = f"first {len(rows)} edges by {run.circuit.rank}"
    columns = [*EDGE_COLUMNS, "effect", "p", *(["live effect"] if live else [])]
    return [table(title, columns, rows)]


def _times(run: LayerRun) -> str:
    done = [f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items()]
    kept = f"unchanged: {', '.join(run.reused)}" if run.reused else ""
    return " · ".join(part for part in [", ".join(done), kept] if part)
