"""Which rankings find the edges that are known to exist, and how much data they need.

Builds towers whose circuit was written down, runs the ordinary pipeline on their files and
measures, for every ranking, how often a planted edge scores above an absent one (AUROC; 0.5 is
chance), over a sweep of strengths (what an edge adds to a logit whose noise has a standard
deviation of 1) and of numbers of images. `output` and `attribution` look past the logits. In
a planted tower attention writes something only where planted edges end, and nothing else reaches
the embedding: that alone gives the edges away to them, however weak they are.

    python examples/06_planted_ground_truth.py                    about three minutes on two cores
    python examples/06_planted_ground_truth.py --quick            a quarter of a minute
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from xaikit import cluster, fit, load_tower, open_images, trace
from xaikit.artifacts.trace import Trace
from xaikit.interventions import Live
from xaikit.rankings import KEYS, ranking, score
from xaikit.testing import planted_tower, recovery_auroc

matplotlib.use("agg")
from matplotlib import pyplot as plt

STRENGTHS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
IMAGES = (16, 32, 64, 128)
DESTINATIONS = ("token", "cluster")
COLOURS = ("#8a8a8a", "#1f6fb4", "#d1495b", "#e39b2d", "#3a9d6e", "#7a4fb0", "#222222", "#6b4a2b")
MARKERS = "os^Dvp*X"


def recovery(strength: float, images: int, seed: int) -> dict[tuple[str, str], float]:
    """AUROC of every ranking and destination on one tower, from its files alone."""
    planted = planted_tower(strength=strength, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        files = planted.save(folder, images, seed=seed)
        tower = load_tower(str(files.config), files.weights)
        source = open_images(images=files.images)
        recorded: Trace = trace(tower, source, target_layer=planted.layer)
        clusters = planted.spec.groups + 1
        features = cluster(recorded, num_clusters=clusters, sample_tokens=0)
        groups = planted.images(images, seed=seed).groups
        truth = planted.truth(features.labels, groups, clusters)
        found = {}
        for destination in DESTINATIONS:
            fitted = fit(
                recorded, features, destination=destination, num_permutations=1, controls=False
            )
            ids = recorded.images
            live = Live(tower, source, [(features, fitted)], ids=ids, images=range(images))
            for key in KEYS:
                scores = score(key, live)[0]
                found[destination, key] = recovery_auroc(
                    scores, truth, destination, planted.spec.blank_group
                )
    return found


def sweep(
    strengths: tuple[float, ...], counts: tuple[int, ...], towers: int, quiet: bool
) -> list[dict[str, Any]]:
    """One record for each strength, number of images, ranking and destination."""
    records = []
    cells = list(product(strengths, counts))
    for strength, images in track(cells, description="towers", disable=quiet):
        runs = [recovery(strength, images, seed) for seed in range(towers)]
        for destination, key in runs[0]:
            values = np.array([run[destination, key] for run in runs])
            records.append(
                {
                    "strength": strength,
                    "images": images,
                    "ranking": key,
                    "destination": destination,
                    "auroc": float(values.mean()),
                    "sd": float(values.std(ddof=1)) if towers > 1 else 0.0,
                }
            )
    return records


def lines(records: list[dict[str, Any]], images: int) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table at one number of images."""
    chosen = [record for record in records if record["images"] == images]
    strengths = sorted({record["strength"] for record in chosen})
    rows = []
    for destination, key in product(DESTINATIONS, KEYS):
        cells = {
            record["strength"]: f"{record['auroc']:.3f}"
            for record in chosen
            if (record["destination"], record["ranking"]) == (destination, key)
        }
        rows.append([destination, key, *(cells[strength] for strength in strengths)])
    return ["edges end at", "ranking", *(f"strength {s:g}" for s in strengths)], rows


def print_tables(records: list[dict[str, Any]], markdown: bool) -> None:
    """One table for each number of images."""
    console = Console(width=None if Console().is_terminal else 120)
    for images in sorted({record["images"] for record in records}):
        head, rows = lines(records, images)
        title = f"AUROC of planted against absent edges, {images} images"
        if markdown:
            rules = ["---", "---", *["---:"] * (len(head) - 2)]
            body = "\n".join("| " + " | ".join(row) + " |" for row in [head, rules, *rows])
            print(f"{title}\n\n{body}\n")
            continue
        table = Table(title=title, title_justify="left", box=None, header_style="bold")
        for at, name in enumerate(head):
            table.add_column(name, justify="left" if at < 2 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def draw(records: list[dict[str, Any]], towers: int, path: Path) -> None:
    """AUROC over strength: a column for each number of images, a row for each destination."""
    counts = sorted({record["images"] for record in records})
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(
        2, len(counts), figsize=(2.6 * len(counts) + 0.6, 5.4), sharex=True, sharey=True
    )
    axes = axes.reshape(2, -1)
    for (row, destination), (column, images) in product(enumerate(DESTINATIONS), enumerate(counts)):
        axis = axes[row, column]
        axis.axhline(0.5, color="#bbbbbb", linewidth=0.8, zorder=0)
        for at, key in enumerate(KEYS):
            own = [
                record
                for record in records
                if (record["destination"], record["images"], record["ranking"])
                == (destination, images, key)
            ]
            axis.plot(
                [record["strength"] for record in own],
                [record["auroc"] for record in own],
                color=COLOURS[at % len(COLOURS)],
                marker=MARKERS[at % len(MARKERS)],
                markersize=3.5,
                linewidth=1.4,
                linestyle="--" if ranking(key).needs_model else "-",
                label=key,
            )
        axis.set_xscale("log", base=2)
        axis.set_ylim(0.35, 1.02)
        if row == 0:
            axis.set_title(f"{images} images", fontsize=10)
        if column == 0:
            axis.set_ylabel(f"edges to {destination}s\nAUROC")
    strengths = sorted({record["strength"] for record in records})
    for axis in axes[1]:
        axis.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
        axis.set_xlabel("strength of an edge (logits)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncol=len(KEYS), frameon=False)
    note = f"mean of {towers} towers; dashed: rankings that run the model; grey: chance"
    figure.text(0.995, 0.005, note, ha="right", fontsize=7.5)
    figure.tight_layout(rect=(0, 0.02, 1, 0.94))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--towers", type=int, default=4, help="towers behind each number")
    parser.add_argument("--quick", action="store_true", help="one tower, a coarse sweep")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--out", type=Path, default=Path("planted_recovery.png"))
    options = parser.parse_args()
    torch.manual_seed(0)
    strengths, counts, towers = STRENGTHS, IMAGES, options.towers
    if options.quick:
        strengths, counts, towers = (0.25, 1.0, 4.0), (16, 64), 1
    records = sweep(strengths, counts, towers, quiet=options.markdown)
    print_tables(records, options.markdown)
    draw(records, towers, options.out)
    options.out.with_suffix(".json").write_text(json.dumps(records, indent=1))
    Console(stderr=True).print(f"→ {options.out}, {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    main()
