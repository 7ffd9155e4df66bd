"""`fit`: prototype logits of each cluster, and a test of every edge."""

from __future__ import annotations

from pathlib import Path

from xaikit.artifacts.file_names import FEATURES, FIT, TRACE
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.stages.fit import FitOptions
from xaikit.stages.fit import fit as stage


@o.command(
    "fit",
    examples=[
        "xaikit fit --trace trace.safetensors --features features.safetensors --destination cluster"
    ],
)
def fit(
    session: Session,
    options: FitOptions,
    trace: o.TraceFile = Path(TRACE),
    features: o.FeaturesFile = Path(FEATURES),
    out: o.Out = Path(FIT),
) -> None:
    """Mean logits of each cluster, and a test of every edge."""
    from xaikit.report.summaries import fit_fields, fit_lines

    with session.progress("fit") as progress:
        found = stage(
            Trace.load(trace),
            Features.load(features),
            options,
            progress=progress,
        )
    found.save(out)
    session.result({"fit": str(out), **fit_fields(found)}, *fit_lines(found), f"→ {out}")
