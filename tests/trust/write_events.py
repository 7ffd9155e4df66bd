"""A kill at each thing a run does to its folder; the next run ends in the bytes of a whole one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trust.processes import Child
from trust.small_runs import MODES, content, difference

_OWN = {
    "stored": ("",),
    "shards": ("trace",),
    "streamed": ("stream-state", "features", "fit."),
    "live": ("",),
}
"""Parts of the names of what a kind of run writes otherwise than the first does."""


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Kill at `cases` events spread over all kinds of runs, or at every one.

    Returns
    -------
    int, list of str
        Kills, and what was wrong after them.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        modes = list(MODES)[seed % len(MODES) :][:1] if cases < len(MODES) * 2 else list(MODES)
        plans = {mode: _Plan(root, mode) for mode in modes}
        events = [(mode, at) for mode, plan in plans.items() for at in plan.events()]
        step = max(1, -(-len(events) // cases))
        chosen = events[seed % step :: step]
        failures = [words for mode, at in chosen if (words := plans[mode].killed(at))]
    return len(chosen), failures


class _Plan:
    """What an undisturbed run of a kind does and leaves."""

    def __init__(self, root: Path, mode: str) -> None:
        self.root, self.mode = root / mode, mode
        self.root.mkdir()
        self.before = self.root / "before"
        if mode == "live":
            # What comes before the live model is as in the other kinds.
            self._ended(Child(self.before, mode, intervene=False))
        whole = self._start("whole")
        count = self.root / "events"
        self._ended(Child(whole, mode, count=count))
        self.places, self.wanted = count.read_text().splitlines(), content(whole)

    def events(self) -> Iterator[int]:
        """Numbers of the events, from 1, that no other kind of run has."""
        for at, place in enumerate(self.places, 1):
            if any(part in place for part in _OWN[self.mode]):
                yield at

    def killed(self, at: int) -> str:
        """What is wrong after a kill at an event and a run to the end."""
        folder = self._start(f"at-{at}")
        first = Child(folder, self.mode, kill_at=at)
        words = first.wait()
        if not words and not first.killed:
            words = "was not killed"
        words = words or Child(folder, self.mode).wait()
        words = words or difference(content(folder), self.wanted)
        shutil.rmtree(folder, ignore_errors=True)
        told = f"{self.mode}, event {at} of {len(self.places)} at {self.places[at - 1]}"
        return f"{told}: {words}" if words else ""

    def _start(self, name: str) -> Path:
        folder = self.root / name
        if self.before.exists():
            shutil.copytree(self.before, folder)
        return folder

    def _ended(self, child: Child) -> None:
        words = child.wait()
        if words:
            raise RuntimeError(f"an undisturbed run: {words}")
