"""`target-causal`: effects of single edges in prototype space."""

from __future__ import annotations

from pathlib import Path

from xaikit.artifacts.file_names import CIRCUIT, FEATURES, FIT, TARGET_CAUSAL, TRACE
from xaikit.artifacts.results import Circuit
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.stages.target_causal import TargetCausalOptions
from xaikit.stages.target_causal import target_causal as stage


@o.command("target-causal", examples=["xaikit target-causal --top-n 20"])
def target_causal(
    session: Session,
    options: TargetCausalOptions,
    trace: o.TraceFile = Path(TRACE),
    features: o.FeaturesFile = Path(FEATURES),
    fit: o.FitFile = Path(FIT),
    circuit: o.CircuitFile = Path(CIRCUIT),
    out: o.Out = Path(TARGET_CAUSAL),
) -> None:
    """What each edge contributes to the predicted logits."""
    from xaikit.report.summaries import target_causal_lines

    with session.progress("target-causal") as progress:
        found = stage(
            Trace.load(trace),
            Features.load(features),
            Fit.load(fit),
            Circuit.load(circuit),
            options,
            progress=progress,
        )
    found.save(out)
    session.result(
        {"target_causal": str(out), "effects": found.to_dict()["effects"]},
        *target_causal_lines(found),
        f"→ {out}",
    )
