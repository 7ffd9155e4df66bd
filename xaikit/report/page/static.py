"""The figures of a run for print: each as SVG, and as PNG of 300 pixels an inch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xaikit.report.calibration import draw_calibration
from xaikit.report.curves import plot_curves
from xaikit.report.heatmaps import draw_contrasts
from xaikit.report.overview import PICTURES, draw_overview
from xaikit.report.page.drawn_graph import DrawnGraph
from xaikit.report.page.edges import pvalue_counts
from xaikit.report.page.parts import LayerParts, RunParts, read_run
from xaikit.report.page.pictures import Pictures

DPI = 300
KINDS = ("svg", "png")


def write_figures(run: RunParts | str | Path, folder: str | Path) -> list[Path]:
    """Draw the graph, and of every layer the overview, curves, p-values and heatmaps.

    Curves of all layers edited together are drawn where they were measured.

    Parameters
    ----------
    run : RunParts or path
        What `read_run` reads, or the folder itself.
    folder : path
        Made where missing; of several layers, with a folder for each.

    Returns
    -------
    list of Path
    """
    found = run if isinstance(run, RunParts) else read_run(run)
    root, written = Path(folder), []
    if found.intervention is not None and found.intervention.curves:
        written += _both(plot_curves, root / "curves", found.intervention)
    graph = DrawnGraph.of(found, Pictures(found.layers[0]))
    if graph.links:
        written += _both(graph.draw, root / "graph")
    for parts in found.layers:
        own = root / f"layer_{parts.layer}" if len(found.layers) > 1 else root
        written += _layer(parts, own)
    return written


def _both(draw: Callable[..., Path], stem: Path, *given: Any) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    return [draw(*given, stem.with_suffix(f".{kind}"), dpi=DPI) for kind in KINDS]


def _layer(parts: LayerParts, folder: Path) -> list[Path]:
    fit, live, written = parts.fit, parts.intervention, []
    if live is not None and live.curves:
        written += _both(plot_curves, folder / "curves", live)
    pictures = Pictures(parts)
    tested = parts.features.test_images or list(range(len(parts.features.labels)))
    images = pictures.available(tested, PICTURES)
    if images and parts.circuit is not None:
        shown = [np.asarray(pictures.framed(image)) for image in images]
        labels = parts.features.labels[images].numpy()
        overview = (shown, labels, fit, parts.circuit, live)
        written += _both(draw_overview, folder / "overview", *overview)
    title = f"{fit.provenance.origin.model}, layer {fit.layer} → {fit.next_layer}"
    counts = pvalue_counts(parts)
    if sum(counts):
        written += _both(draw_calibration, folder / "calibration", counts, title)
    edges = parts.circuit.paths if parts.circuit else ()
    return written + draw_contrasts(fit, edges, folder, title, dpi=DPI, suffixes=KINDS)
