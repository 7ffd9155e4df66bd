"""What is wrong with a run, in plain words: few images, nothing held out, edges without a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xaikit.artifacts.file_names import INTERVENE
from xaikit.artifacts.results import Intervention
from xaikit.report.curves import IN_NUMBERS
from xaikit.report.live import chosen_metric
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import Pictures
from xaikit.report.page.testable import untestable
from xaikit.report.summaries import added, probability

FEW_IMAGES = 100
FEW_TEST_IMAGES = 50
RARE = 10
STABLE = 0.7
SMALL_EFFECT = 0.01
"""1 − cos below which the whole layer's attention hardly matters."""
_TOGETHER = "all layers together"


@dataclass(frozen=True)
class Doubt:
    """Something wrong with the run; `level` is ``serious`` or ``caution``."""

    level: str
    text: str


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def doubts(run: RunParts, pictures: Pictures) -> list[Doubt]:
    """What is wrong with this run, worst first."""
    said: dict[Doubt, list[str]] = {doubt: [_TOGETHER] for doubt in _together(run)}
    for parts in run.layers:
        for doubt in [*_clusters(parts), *_circuit(parts), *_model(parts, run)]:
            said.setdefault(doubt, []).append(str(parts.layer))
    found = [
        Doubt(doubt.level, capital(f"{_where(places, run)}{doubt.text}"))
        for doubt, places in said.items()
    ]
    return sorted([*_of_run(run, pictures), *found], key=lambda doubt: doubt.level != "serious")


def _where(places: list[str], run: RunParts) -> str:
    """What a doubt is of: some layers, all of them together, or both."""
    layers = [place for place in places if place != _TOGETHER]
    words = [_TOGETHER] if _TOGETHER in places else []
    if layers and len(run.layers) > 1:
        some = f"layer{'s' * (len(layers) > 1)} {', '.join(layers)}"
        words.insert(0, "every layer" if len(layers) == len(run.layers) else some)
    return f"{' and '.join(words)}: " if words else ""


def _together(run: RunParts) -> list[Doubt]:
    """What is wrong with the live test of all layers together."""
    if run.intervention is None:
        return []
    return _live(run.intervention, run.circuit.rank if run.circuit is not None else "")


def _of_run(run: RunParts, pictures: Pictures) -> list[Doubt]:
    features = run.layers[0].features
    images, said = len(features.labels), []
    if not features.heldout:
        said.append(
            Doubt(
                "serious",
                "Nothing was held out: clusters, edges and tests are of the same images, so every "
                "figure flatters. Run again with `--holdout 0.5`.",
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
    said += [Doubt(each.level, capital(each.text)) for each in _unstable(run)] + _tests(run)
    return [*said, *_missing(run)]


def _missing(run: RunParts) -> list[Doubt]:
    """Files that are not there; of the live model's more is said elsewhere."""
    said = []
    for what, folders in run.missing.items():
        if what.startswith(INTERVENE):
            continue
        every = len(folders) == len(run.layers)
        where = "" if every else f" in {', '.join(folders)}"
        said.append(Doubt("caution", f"Missing{where}: {what}."))
    return said


def _tests(run: RunParts) -> list[Doubt]:
    counts = {parts.layer: untestable(parts) for parts in run.layers}
    without, used = (sum(each) for each in zip(*counts.values(), strict=True))
    if not without:
        return []
    level = "serious" if without > used / 2 else "caution"
    text = (
        f"{without:,} of {used:,} edges ({_share(without / max(used, 1))}) are not testable: "
        "their clusters sit at the same tokens in every image, or no image was left to test on. "
        "Their strength is no proof of anything; look at their live effect."
    )
    shares = {layer: some / max(every, 1) for layer, (some, every) in counts.items()}
    most = max(shares, key=lambda layer: shares[layer])
    if len(counts) > 1:
        text += f" The largest share is of layer {most} ({_share(shares[most])})."
    return [Doubt(level, text)]


def _share(part: float) -> str:
    """A percentage, of small ones with a digit more."""
    return f"{part:.1%}" if 0 < part < 0.1 else f"{part:.0%}"


def _clusters(parts: LayerParts) -> list[Doubt]:
    features, said = parts.features, []
    sizes = features.cluster_sizes.tolist()
    if max(sizes) > 0.5 * sum(sizes):
        said.append(Doubt("caution", f"one cluster holds {max(sizes) / sum(sizes):.0%} of tokens."))
    empty = sum(size == 0 for size in sizes)
    if empty:
        said.append(Doubt("caution", f"{empty} of {len(sizes)} clusters are empty."))
    rare = _rare(parts)
    if rare:
        said.append(
            Doubt("caution", f"{rare} clusters are found in fewer than {RARE} of the images.")
        )
    if added(parts.fit) <= 2 * abs(parts.fit.controls.get("shuffled_added", 0.0)):
        said.append(Doubt("serious", "clusters explain no more than shuffled ones do."))
    return said


def _rare(parts: LayerParts) -> int:
    """Clusters that few images hold."""
    labels = parts.features.labels.numpy()
    held = [(labels == k).any(1).sum() for k in range(parts.features.num_clusters)]
    return sum(0 < images < RARE for images in held)


def _unstable(run: RunParts) -> list[Doubt]:
    """What `stability` found of clusters on other seeds, or that nobody asked."""
    row = _checked(run)
    if row is None:
        return [
            Doubt(
                "caution",
                "nobody checked whether the clusters hold on other images or with another seed: "
                + _how_to_check(run),
            )
        ]
    if row["ari"] is None or row["ari"] >= STABLE:
        return []
    return [
        Doubt(
            "serious",
            f"the clusters are not stable: with another seed their adjusted Rand index is "
            f"{row['ari']:.2f} (1 is the same, 0 is chance).",
        )
    ]


def _checked(run: RunParts) -> dict[str, Any] | None:
    """What `stability` says of clusters made as the run's are; k-means says nothing of guided."""
    if run.stability is None:
        return None
    features, options = run.layers[0].features, run.stability.provenance.options
    if any(options.get(name) != getattr(features, name) for name in ("method", "prefix")):
        return None
    rows = {row["num_clusters"]: row for row in run.stability.rows}
    return rows.get(features.num_clusters)


def _how_to_check(run: RunParts) -> str:
    """What to run in the folder for `_unstable` to find."""
    features, trace = run.layers[0].features, run.layers[0].trace
    path = trace.path if trace is not None else None
    read, with_model = f"--target-layer {features.layer}", ", with the run's model and images"
    if path is not None and path.is_relative_to(run.root):
        read, with_model = f"--trace {path.relative_to(run.root)}", ""
    words = [
        read,
        f"--method {features.method} --prefix {features.prefix}",
        f"--num-clusters {features.num_clusters} --out stability.json",
    ]
    return f"run `xaikit stability {' '.join(words)}` in the run's folder{with_model}."


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
            Doubt(
                "caution",
                "nobody checked which edges survive other images: run again with `--bootstrap 50`.",
            )
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


def _model(parts: LayerParts, run: RunParts) -> list[Doubt]:
    if parts.intervention is not None:
        return _live(parts.intervention, parts.circuit.rank if parts.circuit is not None else "")
    if run.intervention is not None:
        text = "the live model was asked of all layers together, and not of each alone."
        return [Doubt("caution", text)]
    return [Doubt("serious", "the live model was not asked: run `xaikit intervene`.")]


def _live(live: Intervention, rank: str) -> list[Doubt]:
    said = []
    if not live.heldout:
        said.append(Doubt("serious", "the live test ran on images the circuit was chosen on."))
    if live.num_images < FEW_TEST_IMAGES:
        said.append(
            Doubt(
                "caution",
                f"effects in the running model are means over only {live.num_images} images.",
            )
        )
    full = live.full_effect.get("cosine")
    if full is not None and full < SMALL_EFFECT:
        said.append(
            Doubt(
                "caution",
                "removing the whole attention moves the output little "
                f"(1 − cos = {full:.2g}): there is not much to explain.",
            )
        )
    return said + _listed(live, rank)


def _listed(live: Intervention, rank: str) -> list[Doubt]:
    """Whether the listed circuit does more than random edges of like cover."""
    whole = live.completeness
    # Edges for and against a direction undo one another: their sum says nothing of the ranking.
    if not whole or chosen_metric(live) == IN_NUMBERS or (whole.get("pvalue") or 0.0) <= 0.05:
        return []
    does = f"the listed circuit does {whole['removed']:.1%} of the full effect, "
    p = probability(whole["pvalue"])
    high = whole.get("random_high")
    if high is not None and whole["removed"] > high:
        text = (
            f"{does}more than random edges of like cover, of which too few sets were drawn for a "
            f"test (p = {p})."
        )
        return [Doubt("caution", text)]
    return [
        Doubt(
            "serious",
            f"{does}no more than random edges of like cover ({whole['random_mean']:.1%}, "
            f"p = {p}): its ranking does not find what the model uses."
            f"{'' if rank == 'reach' else ' Rank by `reach` instead.'}",
        )
    ]
