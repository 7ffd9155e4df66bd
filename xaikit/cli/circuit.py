"""`circuit`: rank edges, from the fit alone or by running the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xaikit.artifacts.file_names import CIRCUIT, FIT
from xaikit.artifacts.inputs import FitModelOptions, FormatOptions, ImageOptions
from xaikit.artifacts.tensors import Fit
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import Parts
from xaikit.interventions.live_options import LiveOptions
from xaikit.rankings import ranking
from xaikit.rankings.live import aimed_scores
from xaikit.stages.circuit import CircuitOptions
from xaikit.stages.circuit import circuit as stage


@o.command(
    "circuit",
    examples=[
        "xaikit circuit --fit fit.safetensors --heatmap-dir heatmaps",
        "xaikit circuit --rank zscore --max-qvalue 0.05 --top-k 100",
        "xaikit circuit --rank reach",
        'xaikit circuit --rank reach --toward "top red circle" --against "top blue circle"',
    ],
)
def circuit(
    session: Session,
    options: CircuitOptions,
    model: FitModelOptions,
    images: ImageOptions,
    live: LiveOptions,
    form: FormatOptions,
    fit: o.FitFile = Path(FIT),
    features: o.LiveFeatures = None,
    trace: o.LiveTrace = None,
    heatmap_dir: Annotated[
        Path | None, typer.Option(help="Folder for one `head_<h>.png` a head.")
    ] = None,
    labels: o.Labels = None,
    out: o.Out = Path(CIRCUIT),
) -> None:
    """Rank a fit's edges, keep the first, and draw them.

    Rankings that run the model (see `--rank`) do so on the discovery images.
    """
    from xaikit.report.summaries import circuit_lines

    scored: dict[str, Any] = {}
    if ranking(options.rank).needs_model or live.directed:
        parts = Parts(trace, features, fit)
        loaded = parts.fit
        scored = _live(session, parts, options.rank, model, images, live, form, labels)
    else:
        loaded = Fit.load(fit)
    found = stage(loaded, options, heatmap_dir=heatmap_dir, **scored)
    found.save(out)
    drawn = f", {len(found.heatmaps)} heatmaps in {heatmap_dir}" if heatmap_dir else ""
    session.result(
        {"circuit": str(out), "paths": found.to_dict()["paths"], "heatmaps": found.heatmaps},
        *circuit_lines(found),
        f"→ {out}{drawn}",
    )


def _live(
    session: Session,
    parts: Parts,
    rank: str,
    model: FitModelOptions,
    images: ImageOptions,
    live: LiveOptions,
    form: FormatOptions,
    labels: Path | None,
) -> dict[str, Any]:
    """What running the model says of the edges."""
    from xaikit.interventions.classifiers import classifier_for

    source = parts.source(images)
    with session.progress("circuit") as progress:
        tower = parts.tower(model, form, labels=labels, toward=live.toward)
        ids = parts.ids(source)
        return aimed_scores(
            rank,
            tower,
            source,
            [(parts.features, parts.fit)],
            ids=ids,
            options=live,
            classifier=classifier_for(tower, source, labels, ids) if live.directed else None,
            progress=progress,
        ).of_only_layer()
