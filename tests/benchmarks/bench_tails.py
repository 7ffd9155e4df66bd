"""False positives far out in the tails, for rare clusters and logits with heavy tails.

Run as ``python tests/benchmarks/bench_tails.py [data sets] [--images 64 128 256 512]
[--kinds key entry image] [--destination token|cluster]``; prints a Markdown table. Labels are
independent of the logits (see ``tests/null_data.py``): 64 clusters of Zipf's sizes, 17 tokens, 4
heads, Student's t with 3 degrees of freedom. The normal tail stands beside the one in use.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from null_data import KINDS, LEVELS, fitted, null_data, plant

from xaikit.statistics.multiple import benjamini_hochberg, two_sided_normal
from xaikit.statistics.tails import METHODS

PLANTED = [(0, 0, 3), (1, 1, 5), (3, 2, 7), (8, 3, 9), (20, 0, 11), (40, 1, 13)]
STRENGTHS = (1.0, 2.0, 4.0)
Tails = dict[str, torch.Tensor]


def both(logits: np.ndarray, labels: np.ndarray, destination: str) -> tuple[Tails, torch.Tensor]:
    """p-values of every edge by the tail in use and by the normal one, and the methods' codes."""
    found = fitted(logits, labels, destination)
    z = found.edge_zscores
    normal = torch.where(z != 0, two_sided_normal(z), 1.0)
    return {"normal": normal, "in use": found.edge_pvalues}, found.edge_null_methods


def sizes(sets: int, images: int, kind: str, destination: str) -> list[str]:
    """Rows of the table for one kind of null data."""
    counts: dict[str, list[list[int]]] = {"normal": [], "in use": []}
    alarms: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    tests = []
    for seed in range(sets):
        tails, methods = both(*null_data(seed, images, kind), destination)
        tests.append(int((methods != 0).sum()))
        codes.update(methods.flatten().tolist())
        for name, pvalues in tails.items():
            counts[name].append([int((pvalues <= level).sum()) for level in LEVELS])
            alarms[name] += bool((benjamini_hochberg(pvalues) <= 0.05).any())
        print(f"{kind} {images}: {seed + 1}/{sets}", file=sys.stderr, end="\r", flush=True)
    rows, total = [], np.array(tests)
    for name, parts in counts.items():
        below = np.array(parts)
        rate = below.sum(0) / total.sum()
        # Edges of one data set share its images: the error is that of data sets.
        error = np.square(below - rate * total[:, None]).sum(0) ** 0.5 / total.sum()
        cells = [
            f"{r / level:.3f} ± {e / level:.3f}"
            for r, e, level in zip(rate, error, LEVELS, strict=True)
        ]
        share = alarms[name] / sets
        cells.append(f"{share:.1%} ± {(share * (1 - share) / sets) ** 0.5:.1%}")
        rows.append(f"| {kind} | {images} | {name} | " + " | ".join(cells) + " |")
    used = sum(codes.values())
    print(
        f"{kind} {images}: "
        + ", ".join(f"{METHODS[code]} {count / used:.1%}" for code, count in sorted(codes.items())),
        file=sys.stderr,
    )
    return rows


def power(sets: int, images: int, kind: str) -> str:
    """Share of planted edges with q <= .05, by strength."""
    cells = []
    for strength in STRENGTHS:
        found = dict.fromkeys(("normal", "in use"), 0.0)
        for seed in range(sets):
            logits, labels = null_data(seed, images, kind)
            tails, _ = both(plant(logits, labels, PLANTED, strength), labels, "token")
            for name, pvalues in tails.items():
                qvalues = benjamini_hochberg(pvalues)
                found[name] += sum(bool(qvalues[edge] <= 0.05) for edge in PLANTED)
        shares = {name: count / sets / len(PLANTED) for name, count in found.items()}
        cells.append(f"{shares['normal']:.1%} / {shares['in use']:.1%}")
    return f"| {kind} | {images} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", type=int, nargs="?", default=200)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["key", "entry"])
    parser.add_argument("--destination", choices=("token", "cluster"), default="token")
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = " | ".join(f"at {level:g}" for level in LEVELS)
    print(f"{options.sets} data sets each; edges to {options.destination}s; size / nominal\n")
    print(f"| t3 in | images | tail | {heads} | any q ≤ .05 |")
    print("| --- | ---: | --- |" + " ---: |" * (len(LEVELS) + 1))
    for kind in options.kinds:
        for images in options.images:
            print("\n".join(sizes(options.sets, images, kind, options.destination)), flush=True)
    if options.destination == "token":
        print("\nplanted edges found at q ≤ .05, normal / in use, by strength added to the logit\n")
        print("| t3 in | images | " + " | ".join(f"{each:g}" for each in STRENGTHS) + " |")
        print("| --- | ---: |" + " ---: |" * len(STRENGTHS))
        for kind in options.kinds:
            for images in options.images:
                print(power(max(1, options.sets // 10), images, kind), flush=True)


if __name__ == "__main__":
    main()
