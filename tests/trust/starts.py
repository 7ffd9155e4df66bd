"""Several runs started in one folder at once, one of which may be killed: each waits its turn."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

from trust.processes import Child
from trust.small_runs import content, difference

_TOGETHER = 5
_OPTIONS = ({}, {"seed": 1, "method": "kmeans"})


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Start so many runs, up to five in a folder; some differ in their options."""
    rng, failures = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        known: dict[tuple[str, int], dict[str, str]] = {}
        for at in range(0, cases, _TOGETHER):
            mode, mixed = rng.choice(("stored", "shards", "streamed")), rng.random() < 0.3
            kinds = [(mode, options) for options in range(1 + mixed)]
            for kind in kinds:
                known[kind] = known.get(kind) or _alone(root / f"{mode}-{kind[1]}", *kind)
            count, wanted = min(_TOGETHER, cases - at), [known[kind] for kind in kinds]
            words = _together(root / str(at), mode, count, rng, wanted)
            failures += [f"starts {at} on ({mode}): {each}" for each in words]
    return cases, failures


def _alone(folder: Path, mode: str, options: int) -> dict[str, str]:
    words = Child(folder, mode, **_OPTIONS[options]).wait()
    if words:
        raise RuntimeError(f"an undisturbed run: {words}")
    return content(folder)


def _together(
    folder: Path, mode: str, count: int, rng: random.Random, wanted: list[dict[str, str]]
) -> list[str]:
    """What is wrong after some runs at once, each with the options of one that is `wanted`."""
    children = [Child(folder, mode, **_OPTIONS[at % len(wanted)]) for at in range(count)]
    if count > 1 and rng.random() < 0.5:
        time.sleep(rng.uniform(0, 2))
        children[0].kill()
    words = [each for child in children if (each := child.wait())]
    killed = [child for child in children if child.killed]
    if len(killed) == count:
        words.append("no run was left")
    # Whoever came last decides.
    left = [difference(content(folder), each) for each in wanted]
    if all(left):
        words.append(min(left, key=len))
    shutil.rmtree(folder, ignore_errors=True)
    return words
