"""What was tried and what failed: ``python tests/trust/run.py`` prints the table of the README.

A row is a module in this folder with ``run(cases, seed) -> (cases tried, failures)``. A failure is
an exception that is not one clear line, a hang over 10 s, more than 2 GiB, or a result that changed
without a word. CI tries a seeded share of each row (`test_trust.py`).
"""

from __future__ import annotations

import os

# Before anything imports torch: threads that wait for each other make tiny operations slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

TESTS = str(Path(__file__).parents[1])


class Row(NamedTuple):
    """One item: its name, its module, cases in the whole, and in CI (none: it has a test file)."""

    item: str
    module: str
    cases: int
    share: int


ROWS = (
    Row("changed artefacts", "mutations", 5_200, 0),
    Row("hostile images and archives", "images", 2_000, 120),
    Row("hostile checkpoints", "checkpoints", 210, 28),
    Row("kills at random moments", "kills", 40, 1),
    Row("kills at every write, flush and rename", "write_events", 10_000, 2),
    Row("starts in one folder at once", "starts", 50, 2),
    Row("full disks", "full_disk", 100, 2),
    Row("comparisons of equal runs", "determinism", 12, 1),
    Row("degenerate inputs", "degenerate", 300, 20),
    Row("hostile names", "names", 150, 6),
)


def tried(row: Row, cases: int, seed: int) -> tuple[int, list[str]]:
    """Run a row."""
    found: tuple[int, list[str]] = importlib.import_module(f"trust.{row.module}").run(cases, seed)
    return found


def main() -> int:
    """Run the rows that are asked for and print them in Markdown; 1 where any case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help="At most so many cases a row; default: all.")
    parser.add_argument("--only", help="Modules, such as kills,starts; default: all.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chosen = given.only.split(",") if given.only else [row.module for row in ROWS]
    if unknown := set(chosen) - {row.module for row in ROWS}:
        parser.error(f"--only {','.join(sorted(unknown))}: expected {[r.module for r in ROWS]}")
    lines, failed = ["| item | cases | failures |", "| --- | ---: | ---: |"], False
    for row in ROWS:
        if row.module not in chosen:
            continue
        start = time.monotonic()
        cases, failures = tried(row, min(row.cases, given.cases or row.cases), given.seed)
        lines.append(f"| {row.item} | {cases:,} | {len(failures):,} |")
        failed |= bool(failures)
        print(f"{lines[-1]} {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        for failure in failures[:20]:
            print(f"  {failure}", file=sys.stderr, flush=True)
    print("\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.path[0] = TESTS
    from trust.kit import limit_memory

    limit_memory()
    sys.exit(main())
