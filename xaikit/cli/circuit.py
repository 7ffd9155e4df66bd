"""`circuit`: rank edges, from the fit alone or by running the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaikit.artifacts.inputs import FitModelOptions, FormatOptions, ImageOptions
from xaikit.artifacts.tensors import Fit
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import Parts
from xaikit.interventions.live_options import LiveOptions
from xaikit.rankings import ranking
from xaikit.rankings.live import live_scores
from xaikit.stages.circuit import CircuitOptions
from xaikit.stages.circuit import circuit as stage

if TYPE_CHECKING:
    from torch import Tensor


@o.command(
    "circuit",
    examples=[
        "xaikit circuit --fit fit.safetensors --heatmap-dir heatmaps",
        "xaikit circuit --rank zscore --max-qvalue 0.05 --top-k 100",
        "xaikit circuit --rank reach",
    ],
)
def circuit(
    session: Session,
    options: CircuitOptions,
    model: FitModelOptions,
    images: ImageOptions,
    live: LiveOptions,
    form: FormatOptions,
    fit: o.FitFile = Path("fit.safetensors"),
    features: o.LiveFeatures = None,
    trace: o.LiveTrace = None,
    heatmap_dir: Annotated[
        Path | None, typer.Option(help="Folder for one head_<h>.png a head.")
    ] = None,
    out: o.Out = Path("circuit.json"),
) -> None:
    """Rank a fit's edges, keep the first, and draw them.

    Rankings `output`, `attribution`, `reach` and `rows` run the model on the discovery images.
    """
    from xaikit.report.summaries import circuit_lines

    scores = None
    if ranking(options.rank).needs_model:
        parts = Parts(trace, features, fit)
        loaded = parts.fit
        scores = _live(session, parts, options.rank, model, images, live, form)
    else:
        loaded = Fit.load(fit)
    found = stage(loaded, options, scores=scores, heatmap_dir=heatmap_dir)
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
) -> Tensor:
    """Scores of a ranking that runs the model."""
    source = parts.source(images)
    with session.progress("circuit") as progress:
        return live_scores(
            [rank],
            parts.tower(model, form),
            source,
            parts.features,
            parts.fit,
            ids=parts.ids(source),
            options=live,
            progress=progress,
        )[rank]
