"""False-positive rates of every test on many planted towers without edges.

Run as ``python tests/benchmarks/bench_calibration.py [towers] [images] [token|cluster]``; prints
a Markdown table. Confounds are on: position effects, image effects, and groups that depend on
both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planted_calibration import LEVELS, false_share, null_pvalues, rejections

from xaikit.statistics.multiple import benjamini_hochberg


def bench_calibration(towers: int = 200, images: int = 128, destination: str = "token") -> str:
    """Rates and tower-clustered errors at 5 % and 1 %, and the false discovery rate."""
    found: dict[str, list[np.ndarray]] = {}
    for seed in range(towers):
        for name, values in null_pvalues(
            seed, destination=destination, images=images, in_use=True
        ).items():
            found.setdefault(name, []).append(values)
        print(f"{seed + 1}/{towers} towers", file=sys.stderr, flush=True)
    lines = [
        f"{towers} towers, {images} images each, half of them held out; edges to {destination}s",
        "",
        "| test | tests | rejected at 5 % | rejected at 1 % |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, parts in found.items():
        cells = []
        for level in LEVELS:
            rate, _, count = rejections(parts, level)
            counts = np.array([len(each) for each in parts])
            below = np.array([(each <= level).sum() for each in parts])
            error = np.square(below - rate * counts).sum() ** 0.5 / counts.sum()
            cells.append(f"{rate:.2%} ± {error:.2%}")
        lines.append(f"| {name} | {count:,} | {cells[0]} | {cells[1]} |")
    edges = [torch.from_numpy(each) for each in found["edge, in use"]]
    alarms = np.mean([bool((benjamini_hochberg(each) <= 0.05).any()) for each in edges])
    lines += ["", f"no edge planted: {alarms:.2%} of towers have an edge with q ≤ .05"]
    shares = np.array([false_share(seed, destination=destination) for seed in range(towers)])
    mean, error = shares.mean(0), shares.std(0, ddof=1) / towers**0.5
    lines += [
        "",
        f"with planted edges, q ≤ .05: false discovery rate {mean[0]:.2%} ± {error[0]:.2%}, "
        f"planted edges found {mean[1]:.1%}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    towers, images, destination = (*sys.argv[1:], *("200", "128", "token")[len(sys.argv) - 1 :])
    print(bench_calibration(int(towers), int(images), destination))
