"""The summary that `run-all` ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.rule import Rule

from xaikit.cli.console import duration
from xaikit.interventions import EMBEDDING
from xaikit.report.live import exponent, intervene_fields, intervene_lines
from xaikit.report.summaries import (
    added,
    edge_cells,
    fit_fields,
    fit_lines,
    positions,
    probability,
    ranked_title,
    stability_lines,
    table,
)

if TYPE_CHECKING:
    from xaikit.artifacts.tensors import Features
    from xaikit.run.layer import LayerRun
    from xaikit.run.whole import WholeRun

EDGES = 8


def run_fields(
    runs: Sequence[LayerRun],
    out_dir: Path,
    seconds: float,
    recipe: str = "evidence",
    whole: WholeRun | None = None,
) -> dict[str, Any]:
    """The summary for scripts.

    Parameters
    ----------
    whole : WholeRun, optional
        Of all layers together, where there are several.
    """
    measured = whole.intervention if whole is not None else None
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
        "objective": runs[0].circuit.objective or EMBEDDING.record(),
        **({"together": intervene_fields(measured)} if measured is not None else {}),
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
    runs: Sequence[LayerRun],
    out_dir: Path,
    seconds: float,
    recipe: str = "evidence",
    whole: WholeRun | None = None,
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
            f"{used} of {run.features.num_clusters} clusters used{_positions(run.features)}",
            *fit_lines(run.fit),
            *_edges(run),
            *stability_lines(run.circuit),
            *(intervene_lines(run.intervention) if run.intervention else []),
            _times(run),
        ]
    lines += _together(whole)
    where = runs[0].folder if len(runs) == 1 else out_dir
    pictures = "heatmaps/ and overview.png" if runs[0].overview else "heatmaps/"
    lines.append(f"everything is in {where}/ (pictures: {pictures}), {duration(seconds)} in all")
    return lines


def _positions(features: Features) -> str:
    return f"; by position: {positions(features)}" if features.kinds else ""


def _edges(run: LayerRun) -> list[Any]:
    effects = {effect.key: effect for effect in run.target_causal.effects}
    live = run.intervention.effects if run.intervention else []
    measured = {effect.key: effect.live_effect for effect in live}
    columns, rows = edge_cells(run.circuit.paths[:EDGES])
    for edge, row in zip(run.circuit.paths, rows, strict=False):
        effect = effects.get(edge.key)
        cells = ["", ""]
        if effect is not None:
            pvalue = probability(effect.edge_pvalue, testable=effect.testable)
            cells = [f"{effect.edge_effect:.3f}", pvalue]
        if live:
            cells.append(exponent(measured.get(edge.key)))
        row += cells
    if not rows:
        return ["the circuit is empty"]
    columns += ["effect", "p of effect", *(["live effect"] if live else [])]
    return [table(ranked_title(run.circuit, len(rows)), columns, rows)]


def _together(whole: WholeRun | None) -> list[Any]:
    """What there is of all layers together."""
    if whole is None:
        return []
    found, circuit = whole.intervention, whole.circuit
    return [
        Rule(f"{len(circuit.layers)} layers together", align="left"),
        table(ranked_title(circuit, len(circuit.paths[:EDGES])), *edge_cells(circuit.paths[:EDGES]))
        if circuit.paths
        else "the circuit is empty",
        *(intervene_lines(found) if found is not None else []),
    ]


def _times(run: LayerRun) -> str:
    done = [f"{name} {duration(seconds)}" for name, seconds in run.seconds.items()]
    kept = f"unchanged: {', '.join(run.reused)}" if run.reused else ""
    return " · ".join(part for part in [", ".join(done), kept] if part)
