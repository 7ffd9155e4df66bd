"""The report of a run: bytes, time to write, time to open, and how well clusters are named.

    xaikit run-all --out-dir xaikit-out
    python tests/benchmarks/bench_report.py xaikit-out

Names are scored where the images are the demo's scenes: the share of clusters whose best word is
the known factor that goes with them best, beside the same words in random places.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from report.browser import browser

from xaikit.report.page import Naming, write_report
from xaikit.report.page.factors import known_factors
from xaikit.report.page.names import Halves, Scores, best_words, counted, model_of, word_scores
from xaikit.report.page.parts import RunParts, read_run
from xaikit.report.page.pictures import Pictures

OPENINGS = 5
SHUFFLES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--names", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    run = read_run(arguments.run_dir)
    start, used = time.perf_counter(), time.process_time()
    page = write_report(arguments.run_dir, arguments.out, naming=Naming(wanted=arguments.names))
    seconds = time.process_time() - used
    print(f"written: {time.perf_counter() - start:.1f} s, {seconds:.1f} s of a processor")
    print(f"size: {page.stat().st_size / 1e6:.2f} MB, {len(run.layers)} layers")
    times = opening_times(page)
    print(f"opened, median of {OPENINGS}: {np.median(times):.2f} s (longest {max(times):.2f} s)")
    if arguments.names:
        scored(run)


def opening_times(page: Path) -> list[float]:
    """Seconds from the address to a page whose graph is drawn, in a new context each."""
    found = []
    with browser() as chromium:
        for _ in range(OPENINGS):
            context = chromium.new_context(offline=True)
            tab = context.new_page()
            start = time.perf_counter()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("#circuit .node")
            found.append(time.perf_counter() - start)
            context.close()
    return found


def scored(run: RunParts) -> None:
    """Print how many best words name the known factor, and how many that hold up do."""
    pictures = Pictures(run.layers[0])
    if known_factors(run.layers[0], pictures) is None:
        return
    halves = Halves.of(run.layers[0])
    scores = word_scores(model_of(run.layers[0]), pictures, halves)
    layers = [
        (
            counted(parts, halves.choose),
            counted(parts, halves.check),
            known_factors(parts, pictures) or [],
        )
        for parts in run.layers
    ]
    rng = np.random.default_rng(0)
    right, right_held, clusters, held = hits(layers, scores)
    orders = [rng.permutation(len(scores.words)) for _ in range(SHUFFLES)]
    chance = [
        hits(layers, Scores([scores.words[at] for at in order], scores.choose, scores.check))
        for order in orders
    ]
    rates = [each[0] / each[2] for each in chance]
    print(f"clusters with a word and a factor: {clusters}")
    print(f"best word is the known factor: {right} ({right / clusters:.0%})")
    print(f"word holds on held-out images: {held}; of these the known factor: {right_held}")
    print(f"words shuffled: {np.mean(rates):.1%}, at most {max(rates):.0%} of {SHUFFLES} times")
    mean_held = np.mean([each[1] / max(each[3], 1) for each in chance])
    print(f"words shuffled, of those that hold: {mean_held:.1%}")


Layer = tuple[np.ndarray, np.ndarray, list[dict[str, Any] | None]]
"""Tokens of each cluster in the images of both halves, and each cluster's known factor."""


def hits(layers: list[Layer], scores: Scores) -> tuple[int, int, int, int]:
    """Right words, right words that hold, clusters, and words that hold."""
    right = right_held = clusters = held = 0
    for choose, check, factors in layers:
        for word, factor in zip(best_words(choose, check, scores), factors, strict=True):
            if word is None or factor is None:
                continue
            same = word["word"] == factor["name"]
            clusters, right = clusters + 1, right + same
            held, right_held = held + word["holds"], right_held + (same and word["holds"])
    return right, right_held, clusters, held


if __name__ == "__main__":
    main()
