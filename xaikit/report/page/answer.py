"""The first screen in plain words: what was found."""

from __future__ import annotations

from typing import Any

from xaikit.report.curves import band_fractions
from xaikit.report.live import AT, at_share
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.summaries import added


def found(run: RunParts) -> list[str]:
    """What was found, in a few sentences; of several layers, the best and the worst."""
    sentences = []
    if run.intervention is not None:
        sentences += _live(run.intervention, "all layers edited together")
    if len(run.layers) == 1:
        (parts,) = run.layers
        if parts.intervention is not None:
            sentences += _live(parts.intervention.to_dict(), "")
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
        live = parts.intervention.to_dict() if parts.intervention is not None else None
        curves = _removals(live) if live else []
        drawn = _band(live) if live else None
        circuit = parts.circuit
        rows.append(
            {
                "layer": f"{parts.layer} → {parts.fit.next_layer}",
                "ranking": curves[0]["ranking"] if curves else "",
                "effect": f"{at_share(curves[0], AT):.0%}" if curves else "not asked",
                "random": f"{at_share(drawn, AT):.1%}" if drawn else "",
                "full": f"{live['full_effect'].get('cosine', 0.0):.3g}" if live else "",
                "added": f"{added(parts.fit):+.1%}",
                "edges": f"{circuit.significant:,} of {circuit.tested:,}" if circuit else "",
            }
        )
    return rows


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


def _removals(live: dict[str, Any]) -> list[dict[str, Any]]:
    """Removal curves of the first metric, largest area on the log axis first."""
    first = live["curves"][0]["metric"] if live["curves"] else ""
    found = [c for c in live["curves"] if (c["mode"], c["metric"]) == ("remove", first)]
    return sorted(found, key=lambda curve: -curve["area_log"])


def _band(live: dict[str, Any]) -> dict[str, Any] | None:
    first = live["curves"][0]["metric"] if live["curves"] else ""
    bands = (b for b in live["random"] if (b["mode"], b["metric"]) == ("remove", first))
    return next(bands, None)


def _live(live: dict[str, Any], how: str) -> list[str]:
    """What the live model does when the entries that a ranking puts first are removed."""
    curves, images = _removals(live), live.get("num_images", 0)
    where = f"{images:,} {'held-out ' if live.get('heldout') else ''}images"
    where += f", {how}" if how else ""
    if not curves:
        return [f"No removal curve was measured ({where})."]
    best = curves[0]
    text = (
        f"In the live model, removing the {AT:.0%} of attention entries that the ranking "
        f"“{best['ranking']}” puts first does {at_share(best, AT):.0%} of what removing all of "
        f"them does ({where})"
    )
    drawn = _band(live)
    if drawn:
        _, high = band_fractions(drawn)
        most = at_share({"shares": drawn["shares"], "high": high}, AT, "high")
        text += f"; as many random entries do {at_share(drawn, AT):.1%}, at most {most:.1%}"
    return [text + "."]
