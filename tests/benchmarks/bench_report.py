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
    arguments = parser.parse_args()
    run = read_run(arguments.run_dir)
    for naming, words in ((Naming(wanted=False), "without words"), (Naming(), "with words")):
        start = time.perf_counter()
        page = write_report(arguments.run_dir, arguments.out, naming=naming)
        print(f"written {words}: {time.perf_counter() - start:.1f} s")
    print(f"size: {page.stat().st_size / 1e6:.2f} MB, {len(run.layers)} layers")
    times = opening_times(page)
    print(f"opened, median of {OPENINGS}: {np.median(times):.2f} s (longest {max(times):.2f} s)")
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
    rng = np.random.default_rng(0)
    own = hits(run, pictures, halves, scores)
    orders = [rng.permutation(len(scores.words)) for _ in range(SHUFFLES)]
    shuffled = [
        hits(run, pictures, halves, Scores([scores.words[at] for at in order], *values(scores)))
        for order in orders
    ]
    print(f"clusters: {own[2]}; best word is the known factor: {own[0] / own[2]:.2f}")
    print(f"of the {own[3]} whose word holds on held-out images: {own[1] / max(own[3], 1):.2f}")
    chance = [each[0] / each[2] for each in shuffled]
    print(f"shuffled vocabulary: {np.mean(chance):.3f}, at most {max(chance):.3f} of {SHUFFLES}")


def values(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    return scores.choose, scores.check


def hits(
    run: RunParts, pictures: Pictures, halves: Halves, scores: Scores
) -> tuple[int, int, int, int]:
    """Right words, right words that hold, clusters, and words that hold."""
    right = right_held = clusters = held = 0
    for parts in run.layers:
        choose, check = (counted(parts, images) for images in (halves.choose, halves.check))
        named = best_words(choose, check, scores)
        for word, factor in zip(named, known_factors(parts, pictures) or [], strict=True):
            if word is None or factor is None:
                continue
            same = word["word"] == factor["name"]
            clusters, right = clusters + 1, right + same
            held, right_held = held + word["holds"], right_held + (same and word["holds"])
    return right, right_held, clusters, held


if __name__ == "__main__":
    main()
