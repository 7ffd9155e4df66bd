"""False positives far out in the tails, for rare clusters and logits with heavy tails.

Run as ``python tests/benchmarks/bench_tails.py FILE [--sets 0 200] [--images 64 128 256 512]
[--kinds key entry image] [--destination token cluster] [--power 0 50]``: one line of JSON for each
data set is added to FILE, and those that are there already are not made again, so that a run can
be cut off, go on, and be shared out over several files. ``… FILE FILE --table`` prints Markdown.

Labels are independent of the logits (see ``tests/null_data.py``): 64 clusters of Zipf's sizes, 17
tokens, 2 heads, Student's t with 3 degrees of freedom. The normal tail stands beside the one in
use.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from null_data import KINDS, LEVELS, fitted, null_data, plant

from xaikit.statistics.multiple import benjamini_hochberg, two_sided_normal
from xaikit.statistics.tails import METHODS

HEADS = 2
PLANTED = [(0, 0, 3), (1, 1, 5), (3, 0, 7), (8, 1, 9), (20, 0, 11), (40, 1, 13)]
STRENGTHS = (1.0, 2.0, 4.0)
TAILS = ("normal", "in use")
Row = dict[str, Any]


def both(logits: np.ndarray, labels: np.ndarray, where: str) -> tuple[list[torch.Tensor], Any]:
    """p-values of every edge by the normal tail and by the one in use, and the methods' codes."""
    found = fitted(logits, labels, where)
    z = found.edge_zscores
    return [torch.where(z != 0, two_sided_normal(z), 1.0), found.edge_pvalues], (
        found.edge_null_methods
    )


def size(seed: int, images: int, kind: str, where: str) -> Row:
    """Counts below each level of one null data set, and whether an edge has q <= .05."""
    logits, labels = null_data(seed, images, kind, heads=HEADS)
    tails, methods = both(logits, labels, where)
    return {
        "tests": int((methods != 0).sum()),
        "methods": torch.bincount(methods.flatten().long(), minlength=len(METHODS)).tolist(),
        "below": [[int((p <= level).sum()) for level in LEVELS] for p in tails],
        "alarm": [bool((benjamini_hochberg(p) <= 0.05).any()) for p in tails],
    }


def power(seed: int, images: int, kind: str, where: str) -> Row:
    """How many planted edges have q <= .05, by strength, by either tail."""
    logits, labels = null_data(seed, images, kind, heads=HEADS)
    found = []
    for strength in STRENGTHS:
        tails, _ = both(plant(logits, labels, PLANTED, strength), labels, where)
        tables = [benjamini_hochberg(p) for p in tails]
        found.append([sum(bool(q[edge] <= 0.05) for edge in PLANTED) for q in tables])
    return {"found": found}


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, str, int, int]]:
    """What is to be measured, data set by data set, so that a part of it is a smaller table."""
    cases = list(product(options.destination, options.kinds, options.images))
    for seed in range(*options.sets):
        for where, kind, images in cases:
            yield "size", where, kind, images, seed
    for seed in range(*options.power):
        for where, kind, images in cases:
            if where == "token":
                yield "power", where, kind, images, seed


def measure(options: argparse.Namespace) -> None:
    """Add what is missing to the file."""
    path = options.files[0]
    lines = path.read_text().splitlines() if path.exists() else []
    done = {tuple(json.loads(line)["case"]) for line in lines}
    with path.open("a") as out:
        for case in wanted(options):
            if case in done:
                continue
            what, where, kind, images, seed = case
            row = (size if what == "size" else power)(seed, images, kind, where)
            out.write(json.dumps({"case": case, **row}) + "\n")
            out.flush()


def table(files: list[Path]) -> str:
    """Sizes over nominal ones and alarms; then planted edges that are found."""
    groups: dict[tuple[str, ...], dict[int, Row]] = {}
    for line in (line for path in files for line in path.read_text().splitlines()):
        row = json.loads(line)
        groups.setdefault(tuple(row["case"][:4]), {})[row["case"][4]] = row
    heads = " | ".join(f"at {level:g}" for level in LEVELS)
    lines = [f"| edges to | t3 in | images | sets | tail | {heads} | any q ≤ .05 |"]
    lines.append("| --- | --- | ---: | ---: | --- |" + " ---: |" * (len(LEVELS) + 1))
    strengths = " | ".join(f"strength {each:g}" for each in STRENGTHS)
    found = [f"| t3 in | images | sets | {strengths} |", "| --- | ---: | ---: |" + " ---: |" * 3]
    for (what, where, kind, images), rows in sorted(groups.items(), key=str):
        data = list(rows.values())
        if what == "power":
            found.append(f"| {kind} | {images} | {len(data)} | {_powers(data)} |")
            continue
        for at, tail in enumerate(TAILS):
            cells = " | ".join(_sizes(data, at))
            lines.append(f"| {where} | {kind} | {images} | {len(data)} | {tail} | {cells} |")
    return "\n".join([*lines, "", *found])


def _sizes(rows: list[Row], at: int) -> Iterator[str]:
    """Sizes over nominal ones; edges of one data set share images: the error is of data sets."""
    tests = np.array([row["tests"] for row in rows])
    below = np.array([row["below"][at] for row in rows])
    rate = below.sum(0) / tests.sum()
    error = np.square(below - rate * tests[:, None]).sum(0) ** 0.5 / tests.sum()
    for level, one, spread in zip(LEVELS, rate, error, strict=True):
        yield f"{one / level:.2f} ± {spread / level:.2f}"
    share = float(np.mean([row["alarm"][at] for row in rows]))
    yield f"{share:.1%} ± {(share * (1 - share) / len(rows)) ** 0.5:.1%}"


def _powers(rows: list[Row]) -> str:
    """Normal / in use, and the error of their difference over data sets."""
    found = np.array([row["found"] for row in rows]) / len(PLANTED)
    mean, change = found.mean(0), found[..., 1] - found[..., 0]
    error = change.std(0, ddof=1) / len(rows) ** 0.5
    return " | ".join(
        f"{normal:.1%} / {used:.1%} (± {spread:.1%})"
        for (normal, used), spread in zip(mean, error, strict=True)
    )


def main() -> None:
    """Measure, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--sets", type=int, nargs=2, default=[0, 200])
    parser.add_argument("--power", type=int, nargs=2, default=[0, 50])
    parser.add_argument("--images", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["key", "entry"])
    parser.add_argument("--destination", nargs="+", choices=("token", "cluster"), default=["token"])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        measure(options)
    print(table(options.files))


if __name__ == "__main__":
    main()
