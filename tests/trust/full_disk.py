"""Disks that are full after so many bytes: one line, and the next run ends in the same bytes."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trust.kit import ended
from trust.small_runs import content, difference, make, small_tower

_MODES = ("stored", "shards", "streamed")


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Fill the disk at so many points; `seed` chooses them."""
    rng, failures, tower = random.Random(seed), [], small_tower()
    with tempfile.TemporaryDirectory() as name:
        root, known = Path(name), {}
        for case in range(cases):
            mode = _MODES[(seed + case) % len(_MODES)]
            if mode not in known:
                with room(root, 1 << 40) as left:
                    make(root / mode, mode, tower)
                known[mode] = (1 << 40) - left[0], content(root / mode)
            size, wanted = known[mode]
            folder, most = root / str(case), rng.randrange(size)
            with room(root, most):
                first = ended(lambda: make(folder, mode, tower), seconds=60)  # noqa: B023
            words = first.failure
            if not words and os.strerror(errno.ENOSPC).lower() not in first.refused:
                words = f"{first.refused or 'nothing'} was said of a full disk"
            words = words or ended(lambda: make(folder, mode, tower), seconds=60).failure  # noqa: B023
            words = words or difference(content(folder), wanted)
            shutil.rmtree(folder, ignore_errors=True)
            if words:
                failures.append(f"full after {most} of {size} bytes ({mode}): {words}")
    return cases, failures


@contextlib.contextmanager
def room(folder: Path, size: int) -> Iterator[list[int]]:
    """Let files below a folder take so many bytes more; yields what is left."""
    left, real = [size], builtins.open

    class Limited(io.FileIO):
        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            if len(view) and left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = super().write(view[: left[0]])
            left[0] -= written
            return written

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        own = isinstance(file, str | os.PathLike) and os.path.realpath(file).startswith(below)
        if not own or not set(mode) & set("wax+"):
            return real(file, mode, buffering, *rest, **more)
        raw = Limited(os.fspath(file), mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **more)

    below = os.path.realpath(folder)
    builtins.open = io.open = opened  # type: ignore[assignment]
    try:
        yield left
    finally:
        builtins.open = io.open = real
