"""Which clusters do edges towards a colour start and end at, and which those towards a shape?

    python examples/10_directions.py

The demo's scenes are drawn by code, so that each patch's colour and shape are known. Edges of all
layers are scored on discovery scenes, by how much removing them moves the embedding from prompts
of red things towards those of blue ones, and from circles towards squares. A cluster's share of
a direction is its share of all edges' sizes: of those that start from it (its tokens attend,
queries) or that end at it (its tokens are attended to, keys), among clusters of patches; the class
token's share is said apart. Beside it stands what held-out scenes say the cluster is about: the
mutual information, in bits, of its patches with the colour and with the shape of what is in them,
where something is. A permutation of the clusters within their layers says how often chance tells
the two directions apart as well.
"""

from __future__ import annotations

import argparse
import math

import torch

import xaikit
from xaikit.images.scenes import BACKGROUND, SceneSource
from xaikit.interventions import LiveOptions
from xaikit.rankings.live import joint_scores
from xaikit.stages.trace import trace_layers

DIRECTIONS = {
    "colour": [("top red circle", "top blue circle"), ("top red square", "top blue square")],
    "shape": [("top red circle", "top red square"), ("top blue circle", "top blue square")],
}
SIDES = {"queries": (1, 2), "keys": (0, 1)}
"""The axes of ``[cluster, head, cluster]`` to sum over."""


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=128, help="scenes, half of them held out")
    parser.add_argument("--num-clusters", type=int, default=24)
    parser.add_argument("--score-images", type=int, default=48)
    parser.add_argument("--shown", type=int, default=6)
    options = parser.parse_args()
    tower = xaikit.load_tower("xaikit-demo", with_text=True)
    source = SceneSource(options.count)
    pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]
    parts = []
    for trace in trace_layers(tower, source, pairs):
        features = xaikit.cluster(trace, num_clusters=options.num_clusters, holdout=0.5)
        fit = xaikit.fit(trace, features, destination="cluster", num_permutations=2)
        parts.append((features, fit))
    tables = {
        name: scores_of(tower, source, parts, prompts, options.score_images)
        for name, prompts in DIRECTIONS.items()
    }
    about = {
        factor: torch.tensor([information(features, source)[factor] for features, _ in parts])
        for factor in DIRECTIONS
    }
    for side, others in SIDES.items():
        shares = {name: patch_shares(found, others) for name, found in tables.items()}
        for name, (found, apart) in shares.items():
            print(table(side, name, found, apart, about, options.shown))
        print(summary(side, *(shares[name][0] for name in DIRECTIONS), about))


def scores_of(tower, source, parts, prompts, images) -> list[torch.Tensor]:
    """Sizes of all edges' effects on some directions, a table a layer."""
    totals = None
    for toward, against in prompts:
        options = LiveOptions(
            toward=toward, against=against, ig_steps=2, score_images=images, batch_size=16
        )
        found = joint_scores(
            ["attribution"], tower, source, parts, ids=source.ids, options=options
        )["attribution"]
        sizes = [each.abs() for each in found]
        totals = sizes if totals is None else [a + b for a, b in zip(totals, sizes, strict=True)]
    return totals


def patch_shares(tables: list[torch.Tensor], others: tuple[int, int]) -> tuple[torch.Tensor, float]:
    """Shares ``[layer, cluster]`` of clusters of patches, and the class token's of all."""
    sums = torch.stack([each.sum(others) for each in tables])
    patches = sums[:, :-1]
    return patches / patches.sum(), float(sums[:, -1].sum() / sums.sum())


def information(features, source: SceneSource) -> dict[str, list[float]]:
    """Bits that each cluster's patches share with colour and shape, in held-out scenes."""
    factors = source.factors()
    labels = features.labels[features.heldout][:, -64:]
    found = {}
    for name, values in (("colour", factors.patch_colour), ("shape", factors.patch_shape)):
        known = torch.from_numpy(values.copy())[features.heldout].long()
        there = known != BACKGROUND
        found[name] = [
            mutual(labels[there] == cluster, known[there])
            for cluster in range(features.num_clusters)
        ]
    return found


def mutual(inside: torch.Tensor, values: torch.Tensor) -> float:
    """Mutual information of being in a cluster and of a factor, in bits."""
    table = torch.stack([torch.bincount(values[inside == side], minlength=8) for side in (0, 1)])
    joint = table.double() / table.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    ratio = torch.where(joint > 0, joint / apart.clamp(min=1e-30), 1.0)
    return float((joint * ratio.log()).sum() / math.log(2))


def table(side, name, shares, apart, about, shown: int) -> str:
    """The clusters with most of a direction, as Markdown."""
    lines = [
        f"\n### {name}, {side} (class token {apart:.0%})\n",
        "| layer | cluster | share | bits of colour | bits of shape |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for flat in shares.flatten().argsort(descending=True)[:shown].tolist():
        at, cluster = divmod(flat, shares.shape[1])
        bits = " | ".join(f"{float(about[each][at, cluster]):.3f}" for each in DIRECTIONS)
        lines.append(f"| {at} | {cluster} | {float(shares[at, cluster]):.1%} | {bits} |")
    return "\n".join(lines)


def summary(side: str, colour, shape, about) -> str:
    """How far the two directions' clusters differ, and whether as the factors say."""
    lean = about["colour"][:, :-1] - about["shape"][:, :-1]
    observed = float(((colour - shape) * lean).sum())
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(1999):
        orders = [torch.randperm(lean.shape[1], generator=generator) for _ in lean]
        mixed = torch.stack([row[order] for row, order in zip(lean, orders, strict=True)])
        drawn.append(float(((colour - shape) * mixed).sum()))
    above = sum(value >= observed for value in drawn)
    means = [f"{float((shares * lean).sum()):+.4f}" for shares in (colour, shape)]
    apart = float((colour - shape).abs().sum() / 2)
    return (
        f"\n{side}: {apart:.0%} of the shares lie on other clusters; bits of colour less bits of "
        f"shape, weighted by shares: colour {means[0]}, shape {means[1]}, "
        f"p {(1 + above) / (1 + len(drawn)):.4f}"
    )


if __name__ == "__main__":
    main()
