"""Do the edges that matter for a class matter for that class alone? A table over held-out images.

    xaikit run-all --model timm/vit_tiny_patch16_224 --pretrained vit.safetensors --images photos \
        --target-layer all --num-clusters 48 --no-intervene --out-dir runs/tiny
    python examples/09_class_circuits.py runs/tiny --pretrained vit.safetensors \
        --images photos --classes classes.json

``classes.json`` is an object of class to indices of the head: ``{"dog": [151, 152, …], …}``. The
photos of a class lie in its folder, or are named by ``--group FILE`` as `run-all` takes it; an
image's margin is the log-odds of its class against the best of the others (all classes of the head
that are in no list together count as one more).

Each class's edges are chosen on its discovery images: by what removing them does to its margin
(``own``), and by how much more they do to its margin than to the mean margin of the other classes
on theirs (``specific``). Then 5 % of the logit entries of its held-out images are removed, and the
same edges in the held-out images of all other classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson
import torch

import xaikit
from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.tensors import Features, Fit
from xaikit.interventions import Classifier
from xaikit.interventions.groups import image_groups
from xaikit.stages.groups import GroupOptions, group_circuits
from xaikit.towers import Outputs

ORDERS = ("own", "specific", "common", "random")


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder of run-all")
    parser.add_argument("--model", default="timm/vit_tiny_patch16_224")
    parser.add_argument("--pretrained")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--group", default="folder", help="folder, or a file of image and class")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--test", type=int, default=16, help="held-out images of each class")
    parser.add_argument("--ig-steps", type=int, default=1)
    parser.add_argument("--draws", type=int, default=1)
    options = parser.parse_args()
    print(table(circuits(options), options.share))


def circuits(options: argparse.Namespace) -> GroupCircuits:
    """Rank and remove the edges of every class."""
    tower = xaikit.load_tower(options.model, options.pretrained)
    source = xaikit.open_images(images=options.images)
    folders = sorted(options.run.glob("layer_*"), key=lambda path: int(path.name.split("_")[1]))
    parts = [
        (Features.load(each / "features.safetensors"), Fit.load(each / "fit.safetensors"))
        for each in folders
    ]
    info = parts[0][0].info
    groups = image_groups(options.group, info.images, info.groups)
    members: dict[str, list[int]] = orjson.loads(options.classes.read_bytes())
    groups = {name: rows for name, rows in groups.items() if name in members}
    return group_circuits(
        tower,
        source,
        parts,
        groups,
        ids=info.images,
        classifier=coarse(members, groups, len(info.images), tower.info.classes),
        options=GroupOptions(
            objective="margin",
            rank="attribution",
            ig_steps=options.ig_steps,
            shares=(options.share,),
            max_images=options.test,
            draws=options.draws,
            batch_size=16,
        ),
    )


def coarse(
    members: dict[str, list[int]], groups: dict[str, list[int]], images: int, classes: int
) -> Classifier:
    """A classifier whose classes are groups of the head's."""
    names = list(members)
    listed = {index for own in members.values() for index in own}
    own = [torch.tensor(members[name]) for name in names]
    rest = torch.tensor([index for index in range(classes) if index not in listed])
    targets = torch.zeros(images, dtype=torch.int64)
    for name, rows in groups.items():
        targets[rows] = names.index(name)

    def logits(outputs: Outputs) -> torch.Tensor:
        found = outputs.class_logits.double()
        parts = [found[:, part].logsumexp(1) for part in (*own, rest) if len(part)]
        return torch.stack(parts, 1)

    return Classifier(name="groups of classes", logits=logits, targets=targets, names=names)


def table(found: GroupCircuits, share: float) -> str:
    """Falls of the margins, as Markdown."""
    lines = [
        f"Fall of the margin where {share:.0%} of the entries are removed: of the class, and in "
        "brackets the mean of the other classes.",
        "",
        f"| class | images | everything | {' | '.join(ORDERS)} |",
        "| --- | ---: | ---: |" + " ---: |" * len(ORDERS),
    ]
    totals = {order: [0.0, 0.0] for order in ORDERS}
    for group in found.groups:
        cells = []
        for order in ORDERS:
            figure = next(f for f in group["figures"] if f["ranking"] == order)
            cells.append(f"{figure['effect']:.2f} ({figure['others']:+.2f})")
            totals[order][0] += figure["effect"] / len(found.groups)
            totals[order][1] += figure["others"] / len(found.groups)
        head = f"| {group['name']} | {group['test_images']} | {group['full_effect']:.2f} "
        lines.append(head + f"| {' | '.join(cells)} |")
    means = [f"{own:.2f} ({others:+.2f})" for own, others in totals.values()]
    lines.append(f"| mean | | | {' | '.join(means)} |")
    ratios = [f"{own / abs(others):.1f}" if others else "" for own, others in totals.values()]
    lines.append(f"| times the others | | | {' | '.join(ratios)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
