"""`run-all` on the demo beside other work, and alone, against other ways for threads to wait."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timing import row

IMAGES = 64
COMPETITORS = 2
ROUNDS = 2
SETTINGS: dict[str, dict[str, str]] = {
    "ours": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "default": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
}
"""GNU's and LLVM's own values, said by the user, stand for what happens without us."""


def busy() -> dict[str, Any]:
    """Two other processes on the cores; the reference waits passively."""
    with _competitors():
        ours, passive = _in_turns("ours", "passive")
    return row(ours, passive, 1.5, f"{IMAGES} images, {COMPETITORS} competing processes")


def free() -> dict[str, Any]:
    """Nothing else on the cores; the reference is OpenMP's default."""
    ours, default = _in_turns("ours", "default")
    return row(ours, default, 1.05, f"{IMAGES} images")


def _in_turns(*names: str) -> list[float]:
    """Seconds of each setting, the best of `ROUNDS`."""
    times = {name: float("inf") for name in names}
    for _ in range(ROUNDS):
        for name in names:
            times[name] = min(times[name], _run(SETTINGS[name]))
    return list(times.values())


def _run(settings: dict[str, str]) -> float:
    threads = ("OMP_", "GOMP_", "KMP_")
    own = {k: v for k, v in os.environ.items() if not k.startswith(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "xaikit", "run-all", "--max-images", str(IMAGES)]
        command += ["--no-intervene", "--out-dir", folder, "--quiet"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**own, **settings})
        return time.perf_counter() - start


@contextmanager
def _competitors() -> Iterator[None]:
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(COMPETITORS)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
