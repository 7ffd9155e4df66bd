"""The first screen in plain words: what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.results import Intervention
from xaikit.report.curves import IN_NUMBERS
from xaikit.report.directions import direction, full_words
from xaikit.report.live import (
    AT,
    LEVEL,
    at_share,
    band,
    chosen_metric,
    removal_curves,
    verdict,
)
from xaikit.report.page.clusters import cluster_id, spoken
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.testable import testable as has_test
from xaikit.report.summaries import added, probability
from xaikit.text import printable

if TYPE_CHECKING:
    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.results import Circuit

Cards = Mapping[str, Mapping[str, Any]]
FIRST = 3
"""Edges named."""


def found(run: RunParts, cards: Cards) -> list[str]:
    """What was found, in a few sentences; of several layers, the best and the worst.

    Parameters
    ----------
    run : RunParts
    cards : mapping
        What the page says of each cluster, by its id.
    """
    sentences = _edges(run, cards)
    if run.intervention is not None:
        sentences.append(_live(run.intervention, f"{len(run.layers)} layers together"))
    if len(run.layers) == 1:
        (parts,) = run.layers
        if parts.intervention is not None:
            sentences.append(_live(parts.intervention, f"layer {parts.fit.next_layer}"))
        explained = _explained(parts)
        return [*sentences, explained[:1].upper() + explained[1:], *_listed(parts)]
    gains = sorted(run.layers, key=lambda parts: added(parts.fit))
    for parts, word in ((gains[-1], "most"), (gains[0], "least")):
        sentences.append(f"The clusters of layer {parts.layer} explain {word}: {_explained(parts)}")
    return sentences


def _edges(run: RunParts, cards: Cards) -> list[str]:
    """The first edges of the run's circuit, in words."""
    circuit = run.circuit or run.layers[0].circuit
    if circuit is None or not circuit.paths or (run.circuit is None and len(run.layers) > 1):
        return []
    said = [_edge(edge, run, cards) for edge in circuit.paths[:FIRST]]
    sides = any(edge.side for edge in circuit.paths)
    aim = f", for and against {direction(circuit)}" if sides else ""
    return [f"The first edges, ranked by `{circuit.rank}`{aim}: {'; '.join(said)}."]


def _edge(edge: Edge, run: RunParts, cards: Cards) -> str:
    layer = edge.layer if edge.layer is not None else run.layers[0].layer
    next_layer = edge.next_layer if edge.next_layer is not None else run.layers[0].fit.next_layer
    several = len(run.layers) > 1

    def name(cluster: int) -> str:
        card = cards.get(cluster_id(layer, cluster))
        return spoken(card, several) if card else f"cluster {cluster}"

    target = edge.dst_name if edge.dst_cluster is None else name(edge.dst_cluster)
    if target.endswith(", sink"):
        target = f"{target.removesuffix(', sink')} (a sink)"
    queries = name(edge.cluster_id)
    target = "itself" if target == queries else target
    # Against the same places of other images where that was tested, else against other rows.
    tested = has_test(edge.zscore, edge.pvalue)
    more = (edge.zscore or 0.0) >= 0 if tested else edge.contrast >= 0
    than = "its places alone explain" if tested else "other tokens do"
    if tested and more != (edge.contrast >= 0):
        # What the graph's colours say, which are of the contrast.
        than += f", though {'less' if more else 'more'} than other tokens do"
    return (
        f"{queries} attends {'more' if more else 'less'} to {target} than {than} "
        f"(layer {next_layer}, head {edge.head}{f', {edge.side}' if edge.side else ''})"
    )


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
                "added": f"{added(parts.fit):+.1%}".replace("-", "−"),
                "edges": _significant(circuit) if circuit else "",
            }
        )
    return rows


def _significant(circuit: Circuit) -> str:
    """Edges with a small q-value; guided clusters without held-out images have no tests."""
    if circuit.significant is None:
        return "none tested"
    return f"{circuit.significant:,} of {circuit.tested:,}"


NOT_ASKED = {"ranking": "", "effect": "not asked", "random": "", "full": ""}


def _live_cells(live: Intervention) -> dict[str, str]:
    metric = chosen_metric(live)
    curves, drawn = removal_curves(live, metric), band(live, metric=metric)
    best = max(curves, key=lambda curve: at_share(curve, AT), default=None)
    if metric == IN_NUMBERS:
        return {**NOT_ASKED, "effect": f"of {direction(live)}, see below"}
    return {
        "ranking": best["ranking"] if best else "",
        "effect": f"{at_share(best, AT):.0%}" if best else "not measured",
        "random": f"{at_share(drawn, AT):.1%}" if drawn else "",
        "full": f"{live.full_effect.get(metric, 0.0):.3g}",
    }


def _explained(parts: LayerParts) -> str:
    fit = parts.fit
    held = "on held-out images" if fit.heldout_r2 else "on the images they were learnt on"
    text = (
        f"knowing which cluster a token is in explains {_percent(added(fit))} of the variance of "
        f"attention logits beyond what its position explains, {held}"
    )
    if added(fit) < 0:
        text = (
            "knowing which cluster a token is in predicts attention logits worse than its position "
            f"alone does ({_percent(added(fit))} of their variance), {held}"
        )
    shuffled = fit.controls.get("shuffled_added")
    if shuffled is not None:
        text += f" (clusters of other images: {_percent(shuffled)})"
    return text + "."


def _percent(part: float) -> str:
    # Adding 0.0 leaves no minus before a zero.
    return f"{round(part, 3) + 0.0:.1%}".replace("-", "−")


def _listed(parts: LayerParts) -> list[str]:
    c = parts.circuit
    if c is None or not c.tested:
        return []
    if c.significant is None:
        return [
            "No edge was tested: guided clusters have seen the attention of all these images. The "
            f"circuit lists the first {len(c.paths)} by `{c.rank}`."
        ]
    return [
        f"{c.significant:,} of {c.tested:,} possible edges differ from what shuffled images give "
        f"(q ≤ 0.05). With many images that alone is not much: the circuit lists the first "
        f"{len(c.paths)} by `{c.rank}`."
    ]


def _live(live: Intervention, where: str) -> str:
    """What the live model does when the entries that a ranking puts first are ablated."""
    metric, chance = chosen_metric(live), live.chance
    curves = removal_curves(live, metric)
    shares = metric != IN_NUMBERS and live.ablation == "mean" and live.full_effect.get(metric)
    if not curves or not chance or not shares:
        return printable(f"In the running model, attention of {where}: {verdict(live)}.")
    full = live.full_effect[metric]
    name = " ".join(filter(None, (f"`{chance['best']}`", chance.get("side"))))
    images = f"{live.num_images:,} {'held-out ' if live.heldout else ''}images"
    text = (
        f"In the running model, attention of {where}: putting the average in place of the {AT:.0%} "
        f"of entries that {name} puts first does {chance['effect'] / full:.0%} of what doing so "
        f"everywhere does ({full_words(metric, full)}, {images}); random entries "
        f"do {chance['random_mean'] / full:.1%} (p = {probability(chance['pvalue'])})."
    )
    if chance["pvalue"] > LEVEL:
        text += " That is no better than chance."
    return text
