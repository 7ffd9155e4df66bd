"""One memory budget: what is asked for, else half of what is free within the cgroup's limit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xaikit.passes import memory
from xaikit.passes.memory import budget, draws_bytes, sums_bytes, usable_memory
from xaikit.statistics.block_null import Draws, EdgeShape
from xaikit.statistics.edge_sums import EdgeSums, shuffle_count


def test_what_is_asked_for_is_the_budget_and_else_half_of_what_is_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 1000)
    assert (budget(77), budget(0), budget()) == (77, 0, 500)


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   5 kB\n"}, 5 * 1024),
        ({"/proc/meminfo": "MemAvailable: 5 kB\n", "/sys/fs/cgroup/memory.max": "700\n"}, 700),
        ({"/proc/meminfo": "MemAvailable: 5 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}, 5120),
        ({"/proc/meminfo": "MemAvailable: 5 kB\n", "/sys/fs/cgroup/memory.max": "9999"}, 5120),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": "800"}, 800),
        ({"/proc/meminfo": "MemTotal: 9 kB\n"}, 8 << 30),
        ({}, 8 << 30),
    ],
)
def test_usable_is_what_is_free_within_the_limit(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], usable: int
) -> None:
    def read(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert usable_memory() == usable


def held(sums: EdgeSums) -> int:
    """Bytes of the tensors that sums keep."""
    return sum(tensor.numel() * tensor.element_size() for tensor in sums.state().values())


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_the_forecast_of_sums_is_what_they_hold(pairs: bool, exact: bool) -> None:
    shape = EdgeShape(12, 3, 20, pairs)
    parts, null_block = 2, 0 if exact else 8
    made = [
        EdgeSums(
            shape,
            torch.zeros(3, 20, 20, dtype=torch.float64),
            energy=name == "discovery",
            exact=exact and not pairs,
            shuffles=shuffle_count(shape),
        )
        for name in ("discovery", "heldout")
    ]
    total = sum(held(sums) for sums in made) + 8 * 3 * 20 * 20
    assert sums_bytes(shape, parts, null_block, controls=True) == pytest.approx(total, rel=0.05)
    assert draws_bytes(shape, 9) == Draws(shape, 9, 0).state()["values"].nbytes


@pytest.mark.parametrize(
    ("clusters", "pairs", "count"),
    [(12, False, 5), (256, True, 4), (256, False, 1), (900, True, 1)],
)
def test_shuffled_sums_take_no_more_than_64_mib_where_one_does(
    clusters: int, pairs: bool, count: int
) -> None:
    shape = EdgeShape(clusters, 16, 577, pairs)
    assert shuffle_count(shape) == count
    one = 16 * 16 * clusters * shape.width
    assert count == 1 or count * one <= 64 << 20
    few = sums_bytes(shape, 1, 8, controls=False)
    assert sums_bytes(shape, 1, 8, controls=True) - few == count * one
