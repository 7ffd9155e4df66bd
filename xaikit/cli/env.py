"""`env`: what a bug report needs to say of the machine."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from xaikit.cli import options as o
from xaikit.cli.console import Session

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "RANK",
    "WORLD_SIZE",
    "NO_COLOR",
    "HF_HUB_OFFLINE",
)
"""What changes how a run goes; none of them is a secret."""


@o.command("env", examples=["xaikit env", "xaikit env --json"])
def env(session: Session) -> None:
    """Versions, devices and threads, for a bug report."""
    found = environment()
    lines = []
    for title, fields in found.items():
        lines += [f"{title}", *(f"  {name}: {value}" for name, value in fields.items())]
    session.result(found, "\n".join(lines))


def environment() -> dict[str, dict[str, Any]]:
    """All of it, by section; what is not installed or not set is left out."""
    from xaikit.artifacts.files import FORMAT_VERSION
    from xaikit.version import xaikit_version

    return {
        "xaikit": {"version": xaikit_version(), "format": FORMAT_VERSION},
        "python": {
            "version": sys.version.split()[0],
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
        },
        "libraries": {name: at for name in needed() if (at := _version(name))},
        "torch was built for": _torch(),
        "devices": _devices(),
        "threads": _threads(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def needed() -> list[str]:
    """The libraries that the package says it needs, those of its extras included."""
    try:
        lines = requires("xaikit") or []
    except PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"cpu": f"{os.cpu_count()} cores"}
    if torch.cuda.is_available():
        for at in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(at)
            found[f"cuda:{at}"] = f"{known.name}, {known.total_memory / 2**30:.0f} GiB"
    elif torch.version.cuda:
        found["cuda"] = "none found"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _torch() -> dict[str, Any]:
    """What torch was built for, which need not be there."""
    import torch

    built = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    return {name: at for name, at in built.items() if at}


def _threads() -> dict[str, Any]:
    import faiss
    import torch

    allowed = getattr(os, "sched_getaffinity", None)
    return {
        "torch": torch.get_num_threads(),
        "faiss": faiss.omp_get_max_threads(),
        "allowed cores": len(allowed(0)) if allowed else os.cpu_count(),
    }
