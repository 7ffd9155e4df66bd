"""One memory budget, passed down: what would not fit is cut into slabs or refused."""

from __future__ import annotations

from pathlib import Path

from xaikit.errors import UsageError
from xaikit.statistics.block_null import Draws, EdgeShape
from xaikit.statistics.edge_sums import EXACT_CUBE, exact_moments, shuffle_count

SHARE = 0.5
"""Of the memory that this process may use, where nothing else is asked for."""
_FALLBACK = 8 << 30


def budget(asked: int | None = None) -> int:
    """Bytes that passes may use beside the model."""
    return asked if asked is not None else int(SHARE * usable_memory())


def usable_memory() -> int:
    """Bytes that this process may still use: what is free, within the cgroup's limit."""
    found = [
        _free(),
        *(_cgroup_limit(name) for name in ("memory.max", "memory/memory.limit_in_bytes")),
    ]
    return min((value for value in found if value), default=_FALLBACK)


def _free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    table = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(table["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in table else None


def _cgroup_limit(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text().strip()
        return int(text)
    except (OSError, ValueError):
        return None


def sums_bytes(shape: EdgeShape, parts: int, null_block: int, controls: bool) -> int:
    """Bytes that the sums of one pair of layers take while a pass runs, its draws left out.

    Totals are pairs of float64 numbers (see `xaikit.statistics.totals`).
    """
    h, n = shape.heads, shape.tokens
    edges = 16 * h * shape.clusters * shape.width
    exact = exact_moments(shape, null_block)
    # Sums, excess and variance in pairs; three single numbers that say how far from normal.
    tables = 3 + int(shape.pairs) + 1.5
    shuffled = shuffle_count(shape) if controls else 0
    each = 16 * h * n * n + (tables + shuffled) * edges
    covariance = 16 * min(h * n**3, EXACT_CUBE) if exact else 0
    mean = 8 * h * n * n
    return mean + int(parts * (each + covariance)) + edges


def draws_bytes(shape: EdgeShape, draws: int) -> int:
    """Bytes of the draws of one pair of layers."""
    return Draws.bytes_needed(shape, draws)


def require_draws(shape: EdgeShape, draws: int, asked: int | None) -> None:
    """Refuse permutations whose table, which cannot be cut, does not fit into memory.

    Raises
    ------
    UsageError
        Saying what they take and what may be used.
    """
    need, room = draws_bytes(shape, draws), budget(asked)
    if need > room:
        raise UsageError(
            f"`num_permutations={draws}`: the permutations of one pair of layers take "
            f"{need / 2**30:,.1f} GiB, {room / 2**30:,.1f} may be used: pass fewer of them"
        )
