"""The first screen in plain words: what was found, how sure it is, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xaikit.report.curves import band_fractions
from xaikit.report.live import AT, at_share
from xaikit.report.page.edges import untestable
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import Pictures
from xaikit.report.summaries import added, probability

FEW_IMAGES = 100
FEW_TEST_IMAGES = 50
SMALL_EFFECT = 0.01
"""1 − cos below which the whole layer's attention hardly matters."""


@dataclass(frozen=True)
class Doubt:
    """Something wrong with the run; `level` is ``serious`` or ``caution``."""

    level: str
    text: str


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


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


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


def doubts(run: RunParts, pictures: Pictures) -> list[Doubt]:
    """What is wrong with this run, worst first."""
    said: dict[Doubt, list[int]] = {}
    for parts in run.layers:
        for doubt in [*_tests(parts), *_clusters(parts), *_circuit(parts), *_model(parts)]:
            said.setdefault(doubt, []).append(parts.layer)
    several = len(run.layers) > 1
    found = [
        Doubt(
            doubt.level, capital(f"{_layers(layers, run)}{doubt.text}" if several else doubt.text)
        )
        for doubt, layers in said.items()
    ]
    return sorted([*_of_run(run, pictures), *found], key=lambda doubt: doubt.level != "serious")


def _layers(layers: list[int], run: RunParts) -> str:
    if len(run.layers) == 1:
        return ""
    if len(layers) == len(run.layers):
        return "every layer: "
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}: "


def _of_run(run: RunParts, pictures: Pictures) -> list[Doubt]:
    features = run.layers[0].features
    images, said = len(features.labels), []
    if not features.heldout:
        said.append(
            Doubt(
                "serious",
                "Nothing was held out: clusters, edges and tests are of the same images, so every "
                "figure flatters. Run again with --holdout 0.5.",
            )
        )
    if images < FEW_IMAGES:
        said.append(
            Doubt("serious", f"Only {images} images: rare clusters rest on a handful of them.")
        )
    if features.heldout and len(features.heldout) < FEW_TEST_IMAGES:
        said.append(Doubt("caution", f"Only {len(features.heldout)} images were held out."))
    if pictures.record is not None and pictures.record.skipped:
        said.append(Doubt("caution", f"{pictures.record.skipped:,} images could not be read."))
    if pictures.reason:
        said.append(Doubt("caution", f"No image is shown: {pictures.reason}."))
    return said + [Doubt("caution", f"Missing: {name}.") for name in run.missing]


def _tests(parts: LayerParts) -> list[Doubt]:
    without, used = untestable(parts)
    if not without:
        return []
    level = "serious" if without > used / 2 else "caution"
    return [
        Doubt(
            level,
            f"{without:,} of {used:,} edges ({without / max(used, 1):.0%}) are not testable: "
            "their clusters sit at the same tokens in every image, or no image was left to test "
            "on.",
        )
    ]


def _clusters(parts: LayerParts) -> list[Doubt]:
    features, said = parts.features, []
    sizes = features.cluster_sizes.tolist()
    if max(sizes) > 0.5 * sum(sizes):
        said.append(Doubt("caution", f"one cluster holds {max(sizes) / sum(sizes):.0%} of tokens."))
    empty = sum(size == 0 for size in sizes)
    if empty:
        said.append(Doubt("caution", f"{empty} of {len(sizes)} clusters are empty."))
    moved = _drift(parts)
    if moved is not None and moved > 0.1:
        said.append(
            Doubt(
                "caution",
                f"cluster sizes differ by {moved:.0%} of the tokens between the images they were "
                "learnt on and the others: the clusters may not be stable.",
            )
        )
    if added(parts.fit) <= 2 * abs(parts.fit.controls.get("shuffled_added", 0.0)):
        said.append(Doubt("serious", "clusters explain no more than shuffled ones do."))
    return said


def _drift(parts: LayerParts) -> float | None:
    """Total variation between cluster shares of discovery and held-out images."""
    features = parts.features
    if not features.heldout:
        return None
    labels, count = features.labels.numpy(), features.num_clusters
    shares = []
    for images in (features.discovery, features.heldout):
        sizes = np.bincount(labels[images].reshape(-1), minlength=count)
        shares.append(sizes / max(sizes.sum(), 1))
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _circuit(parts: LayerParts) -> list[Doubt]:
    said: list[Doubt] = []
    circuit = parts.circuit
    if circuit is None:
        return said
    if not circuit.paths:
        return [Doubt("serious", "the circuit is empty.")]
    special = sum(edge.dst_kind in ("prefix", "sink") for edge in circuit.paths)
    if special > len(circuit.paths) / 4:
        said.append(
            Doubt(
                "caution",
                f"{special} of the circuit's {len(circuit.paths)} edges end at class, register or "
                "sink tokens, which draw attention whatever the image shows.",
            )
        )
    stable = circuit.stability
    if not stable:
        said.append(
            Doubt("caution", "no one asked which edges survive other images (--bootstrap 50).")
        )
    elif stable["jaccard"] < 0.5:
        said.append(
            Doubt(
                "serious",
                f"circuits of resampled images share only {stable['jaccard']:.0%} of their edges "
                "with this one (Jaccard).",
            )
        )
    return said


def _model(parts: LayerParts) -> list[Doubt]:
    live, said = parts.intervention, []
    if live is None:
        return [Doubt("serious", "the live model was not asked: run `xaikit intervene`.")]
    if not live.heldout:
        said.append(Doubt("serious", "the live test ran on images the circuit was chosen on."))
    if live.num_images < FEW_TEST_IMAGES:
        said.append(Doubt("caution", f"the live model was asked on {live.num_images} images only."))
    full = live.full_effect.get("cosine")
    if full is not None and full < SMALL_EFFECT:
        said.append(
            Doubt(
                "caution",
                f"removing this layer's whole attention moves the output little "
                f"(1 − cos = {full:.2g}): there is not much to explain.",
            )
        )
    whole = live.completeness
    if whole and (whole.get("pvalue") or 0.0) > 0.05:
        said.append(
            Doubt(
                "serious",
                f"the listed circuit does {whole['removed']:.1%} of the full effect, no more than "
                f"random edges of like cover ({whole['random_mean']:.1%}, "
                f"p = {probability(whole['pvalue'])}): its ranking does not find what the model "
                "uses. Rank by reach instead.",
            )
        )
    return said
