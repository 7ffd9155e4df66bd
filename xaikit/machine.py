"""What of a machine this process may use, and how it shares it.

Imported before torch and FAISS, which bring an OpenMP each: how their threads wait is read from
the environment when they are loaded.
"""

from __future__ import annotations

import os
from pathlib import Path

_MOST = 16
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
_OWN_WORD = ("OMP_WAIT_POLICY", *_WAITING)


def share_processors() -> None:
    """Let OpenMP's threads wait for a moment and then sleep, unless the user says how they wait.

    By default they spin for milliseconds at the end of every operation, in the way of whatever
    else runs, the threads of the other OpenMP included. A thousand turns (some microseconds) are
    what GNU's OpenMP itself takes where it sees more threads than processors; not to spin at all
    costs a machine that is free a tenth.

    Threads beyond a cgroup's quota only wait for each other.
    """
    if not any(name in os.environ for name in _OWN_WORD):
        os.environ.update(_WAITING)
    if "OMP_NUM_THREADS" not in os.environ and _quota() is not None:
        os.environ["OMP_NUM_THREADS"] = str(usable_processors(most=1024))


def usable_processors(most: int = _MOST) -> int:
    """Processors that this process may use, at least 1 and at most `most`.

    A batch system gives a job some of a machine's processors by affinity, a container a share of
    their time by a cgroup's quota: more threads than either only wait for each other.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _quota()
    if quota is not None:
        # Half a processor more is worth a thread; less is not.
        processors = min(processors, max(1, round(quota)))
    return max(1, min(processors, most))


def _quota() -> float | None:
    """The smallest quota, in processors, of the cgroups that this process is in."""
    found = [quota for folder in _cgroups() if (quota := _quota_of(folder)) is not None]
    return min(found, default=None)


def _cgroups() -> list[Path]:
    """Folders of this process's cgroups (version 2, and the cpu controller's of version 1)."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":
            bases = [_CGROUP]
        elif "cpu" in controllers.split(","):
            bases = [_CGROUP / controllers, _CGROUP / "cpu"]
        else:
            continue
        # A quota above this cgroup binds it as well; in a container the path may be the host's.
        here = Path(name.lstrip("/"))
        folders += [base / part for base in bases for part in (here, *here.parents)]
    return folders


def _quota_of(folder: Path) -> float | None:
    quota, period = "max", ""
    try:
        if (folder / "cpu.max").exists():
            quota, _, period = (folder / "cpu.max").read_text().strip().partition(" ")
        elif (folder / "cpu.cfs_quota_us").exists():
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
