"""Which clusters do edges towards a colour end at, and which those towards a shape?

    python examples/10_directions.py

The demo's scenes are drawn by code, so that each patch's colour and shape are known. Edges of all
layers are scored on discovery scenes, with their sign, towards each of the thirty prompts ("top red
circle"): how much removing them moves the embedding away from it. Scores are linear in the prompt,
so that those towards red against blue are a difference of means over prompts. What a key cluster
adds to a direction is the sum over the edges that end at it. Beside it stands what held-out scenes
say of the cluster: how much likelier a patch of a red thing is in it than one of a blue thing.

For all values of a factor at once, ``r`` is the correlation over clusters of patches and values,
each against the mean of the factor's values; ``p`` is how often clusters permuted within their
layer agree as well.
"""

from __future__ import annotations

import argparse

import torch

import xaikit
from xaikit.images.drawing import SHAPES
from xaikit.images.scenes import BACKGROUND, COLOURS, GRID, SceneSource
from xaikit.interventions import LiveOptions
from xaikit.rankings.live import joint_scores
from xaikit.stages.trace import trace_layers

FACTORS = {"colour": COLOURS, "shape": SHAPES}
PAIRS = {"colour": ("red", "blue"), "shape": ("circle", "square")}
TOP = GRID * GRID // 2
"""Patches of the upper half, which the prompts speak of."""
DRAWS = 1999


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=256, help="scenes, half of them held out")
    parser.add_argument("--seed", type=int, default=0, help="which scenes")
    parser.add_argument("--num-clusters", type=int, default=24)
    parser.add_argument("--method", choices=("guided", "kmeans"), default="guided")
    parser.add_argument("--score-images", type=int, default=96)
    options = parser.parse_args()
    tower = xaikit.load_tower("xaikit-demo", with_text=True)
    source = SceneSource(options.count, options.seed)
    pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]
    parts = []
    for trace in trace_layers(tower, source, pairs):
        features = xaikit.cluster(
            trace, num_clusters=options.num_clusters, method=options.method, holdout=0.5
        )
        fit = xaikit.fit(trace, features, destination="cluster", num_permutations=2)
        parts.append((features, fit))
    pushes = pushes_of(tower, source, parts, options.score_images)
    held = {name: likelier(parts, source, name) for name in FACTORS}
    for name in FACTORS:
        print(agreement(name, pushes[name], held[name]))
    for name in FACTORS:
        print(first_clusters(name, pushes[name], held))


def pushes_of(tower, source, parts, images: int) -> dict[str, torch.Tensor]:
    """What each key cluster of patches adds towards a value, ``[value, layer, cluster]``."""
    table = torch.stack(
        [
            torch.stack([towards(tower, source, parts, f"top {c} {s}", images) for s in SHAPES])
            for c in COLOURS
        ]
    )
    return {"colour": centred(table.mean(1)), "shape": centred(table.mean(0))}


def towards(tower, source, parts, prompt: str, images: int) -> torch.Tensor:
    """Signed scores of a prompt, summed over edges that end at a cluster, ``[layer, cluster]``."""
    options = LiveOptions(toward=prompt, ig_steps=1, score_images=images, batch_size=32)
    found = joint_scores(["attribution"], tower, source, parts, ids=source.ids, options=options)
    return torch.stack([each.double().sum((0, 1))[:-1] for each in found["attribution"]])


def likelier(parts, source: SceneSource, name: str) -> torch.Tensor:
    """How likely held-out patches of a value are in a cluster, ``[value, layer, cluster]``."""
    factors = source.factors()
    values = factors.patch_colour if name == "colour" else factors.patch_shape
    layers = []
    for features, _ in parts:
        labels = features.labels[features.heldout][:, -2 * TOP :][:, :TOP]
        known = torch.from_numpy(values.copy())[features.heldout][:, :TOP].long()
        assert int(known.min()) >= BACKGROUND
        rows = [
            torch.bincount(labels[known == value], minlength=features.num_clusters).double()
            for value in range(len(FACTORS[name]))
        ]
        layers.append(torch.stack([row[:-1] / row.sum().clamp(min=1) for row in rows]))
    return centred(torch.stack(layers, dim=1))


def centred(table: torch.Tensor) -> torch.Tensor:
    """Each value against the mean of all."""
    return table - table.mean(0)


def agreement(name: str, pushes: torch.Tensor, held: torch.Tensor) -> str:
    """Correlation with the known factor, a layer at a time and over all, as Markdown."""
    generator = torch.Generator().manual_seed(0)
    lines = [f"\n### {name}\n", "| layer | r | p |", "| --- | ---: | ---: |"]
    layers = range(pushes.shape[1])
    for title, chosen in [*((str(at), [at]) for at in layers), ("all", list(layers))]:
        ours = torch.stack([unit(pushes[:, at]) for at in chosen], dim=1)
        known = torch.stack([unit(held[:, at]) for at in chosen], dim=1)
        observed = float((ours * known).sum()) / len(chosen)
        drawn = []
        for _ in range(DRAWS):
            orders = [torch.randperm(ours.shape[2], generator=generator) for _ in chosen]
            mixed = [known[:, at, order] for at, order in enumerate(orders)]
            drawn.append(float((ours * torch.stack(mixed, dim=1)).sum()) / len(chosen))
        above = sum(value >= observed for value in drawn)
        lines.append(f"| {title} | {observed:+.2f} | {(1 + above) / (1 + DRAWS):.4f} |")
    return "\n".join(lines)


def unit(table: torch.Tensor) -> torch.Tensor:
    """Of length 1: products of two such tables, centred over values, are correlations."""
    return table / table.norm().clamp(min=1e-30)


def first_clusters(name: str, pushes: torch.Tensor, held: dict[str, torch.Tensor]) -> str:
    """The clusters that add most to a pair's direction, and what they hold, as Markdown."""
    toward, against = (FACTORS[name].index(value) for value in PAIRS[name])
    added = pushes[toward] - pushes[against]
    heads = " | ".join(f"{a} less {b}" for a, b in PAIRS.values())
    lines = [
        f"\n### Towards {PAIRS[name][0]} against {PAIRS[name][1]}: first key clusters\n",
        f"| layer | cluster | share | {heads} |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    shares = added.abs() / added.abs().sum()
    for flat in shares.flatten().argsort(descending=True)[:6].tolist():
        at, cluster = divmod(flat, shares.shape[1])
        known = []
        for factor, (a, b) in PAIRS.items():
            rows = held[factor][:, at, cluster]
            known.append(float(rows[FACTORS[factor].index(a)] - rows[FACTORS[factor].index(b)]))
        sign = "+" if added[at, cluster] > 0 else "−"
        cells = " | ".join(f"{value:+.1%}" for value in known)
        lines.append(f"| {at} | {cluster} | {sign}{float(shares[at, cluster]):.1%} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
