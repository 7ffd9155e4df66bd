"""The first screen in plain words: what was found."""

from __future__ import annotations

from xaikit.artifacts.results import Intervention
from xaikit.report.live import AT, at_share, band, chosen_metric, removal_curves, verdict
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.summaries import added


def found(run: RunParts) -> list[str]:
    """What was found, in a few sentences; of several layers, the best and the worst."""
    sentences = []
    if run.intervention is not None:
        sentences.append(_live(run.intervention, "all layers edited together"))
    if len(run.layers) == 1:
        (parts,) = run.layers
        if parts.intervention is not None:
            sentences.append(_live(parts.intervention, ""))
        return [*sentences, _explained(parts), *_listed(parts)]
    gains = sorted(run.layers, key=lambda parts: added(parts.fit))
    for parts, word in ((gains[-1], "most"), (gains[0], "least")):
        sentences.append(f"The clusters of layer {parts.layer} explain {word}: {_explained(parts)}")
    return sentences


def by_layer(run: RunParts) -> list[dict[str, str]]:
    """A row for each of several layers: live effect, what clusters add, edges that hold."""
    if len(run.layers) == 1:
        return []
    rows = []
    for parts in run.layers:
        circuit, live = parts.circuit, parts.intervention
        rows.append(
            {
                "layer": f"{parts.layer} → {parts.fit.next_layer}",
                **(_live_cells(live) if live is not None else NOT_ASKED),
                "added": f"{added(parts.fit):+.1%}",
                "edges": f"{circuit.significant:,} of {circuit.tested:,}" if circuit else "",
            }
        )
    return rows


NOT_ASKED = {"ranking": "", "effect": "not asked", "random": "", "full": ""}


def _live_cells(live: Intervention) -> dict[str, str]:
    metric = chosen_metric(live)
    curves, drawn = removal_curves(live, metric), band(live, metric=metric)
    best = max(curves, key=lambda curve: at_share(curve, AT), default=None)
    return {
        "ranking": best["ranking"] if best else "",
        "effect": f"{at_share(best, AT):.0%}" if best else "not measured",
        "random": f"{at_share(drawn, AT):.1%}" if drawn else "",
        "full": f"{live.full_effect.get(metric, 0.0):.3g}",
    }


def _explained(parts: LayerParts) -> str:
    fit = parts.fit
    held = "held-out images" if fit.heldout_r2 else "the images they were learnt on"
    text = (
        f"knowing the clusters explains {added(fit):+.1%} of the variance of the attention "
        f"logits beyond what position explains, on {held}"
    )
    shuffled = fit.controls.get("shuffled_added")
    if shuffled is not None:
        text += f" ({shuffled:+.1%} when images are shuffled)"
    return text + "."


def _listed(parts: LayerParts) -> list[str]:
    c = parts.circuit
    if c is None or not c.tested:
        return []
    return [
        f"{c.significant:,} of {c.tested:,} possible edges hold on average across images "
        f"(q ≤ 0.05); the circuit lists the first {len(c.paths)} by {c.rank}."
    ]


def _live(live: Intervention, how: str) -> str:
    """What the live model does when the entries that a ranking puts first are removed."""
    said = verdict(live)
    return f"In the live model{f', {how}' if how else ''}: {said}."
