"""`causal`: effects of whole clusters in prototype space."""

from __future__ import annotations

from pathlib import Path

from xaikit.artifacts.file_names import CAUSAL, FEATURES, FIT
from xaikit.artifacts.tensors import Features, Fit
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.stages.causal import CausalOptions
from xaikit.stages.causal import causal as stage


@o.command("causal", examples=["xaikit causal --num-permutations 200 --json"])
def causal(
    session: Session,
    options: CausalOptions,
    features: o.FeaturesFile = Path(FEATURES),
    fit: o.FitFile = Path(FIT),
    out: o.Out = Path(CAUSAL),
) -> None:
    """Ablate and inject whole clusters in the predicted logits."""
    from xaikit.report.summaries import causal_lines

    found = stage(
        Features.load(features),
        Fit.load(fit),
        options,
    )
    found.save(out)
    session.result(
        {"causal": str(out), "effects": found.to_dict()["effects"]},
        *causal_lines(found),
        f"→ {out}",
    )
