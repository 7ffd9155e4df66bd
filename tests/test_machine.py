from __future__ import annotations

import os
import subprocess
import sys

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


OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@pytest.mark.parametrize(
    ("given", "quota", "expected"),
    [
        ({}, "max 1", {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "max 1", {}),
        ({"GOMP_SPINCOUNT": "7"}, "max 1", {}),
        ({"KMP_BLOCKTIME": "infinite", "OMP_NUM_THREADS": "5"}, "3 1", {}),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "3 1", {"OMP_NUM_THREADS": "3"}),
        (
            {"OMP_NUM_THREADS": "5"},
            "3 1",
            {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"},
        ),
    ],
)
def test_threads_wait_briefly_unless_the_user_says_how(
    cgroups, monkeypatch, given, quota, expected
):
    cgroups("0::/\n", {"cpu.max": quota})
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
        if name in given:
            monkeypatch.setenv(name, given[name])
    machine.share_processors()
    found = {name: os.environ[name] for name in OWN if name in os.environ}
    assert found == given | expected


def test_it_is_said_before_torch_is_loaded():
    code = "import sys, os, xaikit; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    own = {k: v for k, v in os.environ.items() if k not in OWN}
    done = subprocess.run(
        [sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False 1000\n"
