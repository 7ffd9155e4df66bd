from __future__ import annotations

import os

import pytest

from xaikit import machine


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Write files of a made-up /sys/fs/cgroup, for a process with 8 processors."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return lambda own, files: write(own, **files)


@pytest.mark.parametrize(
    ("own", "files", "processors"),
    [
        ("0::/\n", {}, 8),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, 8),
        ("0::/job\n", {"job/cpu.max": "200000 100000\n"}, 2),
        ("0::/job/step\n", {"job/cpu.max": "300000 100000\n"}, 3),
        ("0::/job/step\n", {"job/cpu.max": "3 1", "job/step/cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "900000 100000\n"}, 8),
        ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 8),
        (
            "4:cpu,cpuacct:/job\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "500000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("1:memory:/\n", {"memory/cpu.max": "1 1"}, 8),
    ],
)
def test_processors_by_affinity_and_quota(cgroups, own, files, processors):
    cgroups(own, files)
    assert machine.usable_processors() == processors


def test_at_most_so_many(cgroups):
    cgroups("0::/\n", {})
    assert machine.usable_processors(3) == 3
