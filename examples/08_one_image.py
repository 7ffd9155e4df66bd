"""Does an image's own circuit do more than the common one? A table over held-out images.

    python examples/08_one_image.py
    python examples/08_one_image.py --model timm/vit_tiny_patch16_224 \
        --pretrained vit.safetensors --images photos --layers all --test 48
    python examples/08_one_image.py --run runs/tiny --pretrained vit.safetensors --images photos

Clusters and the common order of the edges are of the discovery images: k-means clusters learnt
here, or with ``--run`` those of all layers of a folder of run-all. For each held-out image
the edges are ranked once more on some views of it (the whole image and crops), and both orders
are measured on other views (its mirror image, other crops): the share of the full effect that
removing the first 10 % of these views' logit entries reaches, what is left of it when only those
are kept, and on how many views the model then still gives its own first class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import xaikit
from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.run_record import run_folders
from xaikit.artifacts.tensors import Features, Fit
from xaikit.images import ImageSource
from xaikit.images.reopening import reopen
from xaikit.images.views import find_image
from xaikit.interventions import spread_evenly
from xaikit.interventions.classifiers import classifier_for
from xaikit.rankings.live import joint_scores
from xaikit.stages.explain import ExplainOptions, explain
from xaikit.stages.trace import trace_layers
from xaikit.towers import Tower

Parts = list[tuple[Features, Fit]]


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="xaikit-demo")
    parser.add_argument("--pretrained")
    parser.add_argument("--images", type=Path, help="folder; default: the demo's scenes")
    parser.add_argument("--run", type=Path, help="folder of run-all: its clusters, of its layers")
    parser.add_argument("--layers", default="all", help="target layers: 6, or 3,6, or all")
    parser.add_argument("--num-clusters", type=int, default=16)
    parser.add_argument("--count", type=int, default=96, help="images, half of them held out")
    parser.add_argument("--test", type=int, default=48, help="held-out images to explain")
    parser.add_argument("--views", type=int, default=4, help="of each, half of them to test on")
    parser.add_argument("--rank", default="reach")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--draws", type=int, default=2, help="random orders")
    options = parser.parse_args()
    found = explanations(options)
    print(table(found, options))


def explanations(options: argparse.Namespace) -> list[Explanation]:
    """Explain the held-out images."""
    tower, source, parts = of_run(options) if options.run else fitted(options)
    ids = parts[0][0].info.images
    o = ExplainOptions(
        rank=options.rank,
        views=options.views,
        shares=(options.share, 1.0),
        band_shares=(options.share,),
        draws=options.draws,
        edges=0,
        batch_size=16,
    )
    common = joint_scores([options.rank], tower, source, parts, ids=ids, options=o)[options.rank]
    classifier = classifier_for(tower, source, None, ids) if tower.info.classes else None
    return [
        explain(
            tower,
            source,
            parts,
            find_image(source, ids[row]),
            name=ids[row],
            ids=ids,
            scores=common,
            classifier=classifier,
            options=o,
        )
        for row in spread_evenly(parts[0][0].heldout, options.test)
    ]


def of_run(options: argparse.Namespace) -> tuple[Tower, ImageSource, Parts]:
    """The model, images and layers of a run."""
    parts = [
        (Features.load(folder / "features.safetensors"), Fit.load(folder / "fit.safetensors"))
        for folder in run_folders(options.run)
    ]
    tower = xaikit.load_tower(parts[0][1].provenance.origin.model, options.pretrained)
    if options.images:
        return tower, xaikit.open_images(images=options.images), parts
    return tower, reopen(parts[0][0].info.source), parts


def fitted(options: argparse.Namespace) -> tuple[Tower, ImageSource, Parts]:
    """The model and images that the options name, clustered and fitted."""
    tower = xaikit.load_tower(options.model, options.pretrained)
    source = xaikit.open_images(
        images=options.images, demo=options.images is None, max_images=options.count
    )
    layers = range(tower.info.layers - 1)
    if options.layers != "all":
        layers = [int(layer) for layer in options.layers.split(",")]
    parts = []
    for trace in trace_layers(
        tower, source, [(layer, layer + 1) for layer in layers], max_images=options.count
    ):
        features = xaikit.cluster(trace, num_clusters=options.num_clusters, holdout=0.5)
        fit = xaikit.fit(trace, features, destination="cluster", num_permutations=2)
        parts.append((features, fit))
    return tower, source, parts


def table(found: list[Explanation], options: argparse.Namespace) -> str:
    """Means over the images, as Markdown."""
    layers = "of the run" if options.run else options.layers
    lines = [
        f"{len(found)} held-out images, {options.views // 2} unused views each, "
        f"layers {layers}, {options.share:.0%} of the entries, full effect "
        f"{total(found, 'full', 'remove', 'cosine') / len(found):.3f}",
        "",
        "| edges | removed: share of full effect | kept: what is left of it | own class kept |",
        "| --- | ---: | ---: | ---: |",
    ]
    full = total(found, "full", "remove", "cosine")
    for order in ("own", "common", "random"):
        cells = [f"{total(found, order, m, 'cosine') / full:.3f}" for m in ("remove", "keep")]
        lost = total(found, order, "keep", "accuracy") / len(found)
        cells.append(f"{1 - lost:.1%}" if "accuracy" in found[0].metrics else "")
        lines.append(f"| {order} | {' | '.join(cells)} |")
    ahead = [share_of(each, "own") > share_of(each, "common") for each in found]
    lines += ["", f"removing the own edges does more on {sum(ahead)} of {len(ahead)} images"]
    return "\n".join(lines)


def total(found: list[Explanation], order: str, mode: str, metric: str) -> float:
    """Sum over the images of an order's effect at the share."""
    return sum(effect(each, order, mode, metric) for each in found)


def share_of(found: Explanation, order: str) -> float:
    """What removing an order's edges does to one image."""
    return effect(found, order, "remove", "cosine")


def effect(found: Explanation, order: str, mode: str, metric: str) -> float:
    """The effect of an order at the share, or of ablating everything."""
    if metric not in found.metrics:
        return 0.0
    if order == "full":
        return found.full_effect[metric]
    for record in [*found.curves, *found.random]:
        if (record["ranking"], record["mode"], record["metric"]) == (order, mode, metric):
            return float(record["effects" if order != "random" else "mean"][0])
    return 0.0


if __name__ == "__main__":
    main()
