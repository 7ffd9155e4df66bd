"""Kills at random moments, some of them twice; the next run ends in the bytes of a whole one."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

from trust.processes import Child
from trust.small_runs import content, difference

_MODES = ("stored", "shards", "streamed")


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Kill so many runs; `seed` chooses the moments."""
    rng, failures = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        known = {}
        for case in range(cases):
            mode = _MODES[(seed + case) % len(_MODES)]
            if mode not in known:
                known[mode] = _whole(root / mode, mode)
            seconds, wanted = known[mode]
            folder = root / f"{case}"
            words = ""
            for _ in range(rng.choice((1, 1, 2))):
                child = Child(folder, mode)
                time.sleep(rng.uniform(0, seconds))
                child.kill()
            words = Child(folder, mode).wait() or difference(content(folder), wanted)
            shutil.rmtree(folder, ignore_errors=True)
            if words:
                failures.append(f"kill {case} ({mode}): {words}")
    return cases, failures


def _whole(folder: Path, mode: str) -> tuple[float, dict[str, str]]:
    """How long an undisturbed run takes, and what it leaves."""
    start = time.monotonic()
    words = Child(folder, mode).wait()
    if words:
        raise RuntimeError(f"an undisturbed run: {words}")
    return time.monotonic() - start, content(folder)
