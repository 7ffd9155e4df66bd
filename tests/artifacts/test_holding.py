"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from xaikit.artifacts import holding as module
from xaikit.artifacts import replacing
from xaikit.artifacts.holding import LOCK, holding
from xaikit.distributed import World
from xaikit.errors import UsageError, XaikitError, XaikitWarning

HOLDER = (
    "import sys, time\n"
    "from xaikit.artifacts.holding import holding\n"
    "with holding(sys.argv[1]):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(float(sys.argv[2]))\n"
)


def holder(folder, seconds):
    """A process that holds a folder for some time."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_waits_and_says_for_whom(tmp_path):
    process = holder(tmp_path / "run", 1.0)
    start = time.monotonic()
    said = rf"another run \(process {process.pid} on .*\) writes to .*run: waiting for its end"
    with pytest.warns(XaikitWarning, match=said), holding(tmp_path / "run"):
        assert process.wait(timeout=120) == 0
    assert time.monotonic() - start > 0.2
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_a_dead_owner_blocks_nobody(tmp_path):
    process = holder(tmp_path, 600)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=120)
    assert (tmp_path / LOCK).exists()
    with holding(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())


def test_several_processes_refuse_in_place_of_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(World, "broadcast", lambda self, tensors: dict(tensors))
    process = holder(tmp_path, 600)
    try:
        with (
            pytest.raises(XaikitError, match="another run writes to"),
            holding(tmp_path, World(0, 2)),
        ):
            pass
    finally:
        process.kill()
        process.wait(timeout=120)


def test_a_run_holds_its_folder_once_and_leaves_nothing(tmp_path):
    with holding(tmp_path / "a" / "b"), holding(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").write_text("")
    assert [each.name for each in (tmp_path / "a" / "b").iterdir()] == ["kept"]
    with holding(tmp_path / "empty" / "b"):
        pass
    assert not (tmp_path / "empty").exists()


def test_a_folder_may_be_held_by_any_of_its_names_and_beside_others(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with holding(tmp_path / "run"), holding(tmp_path / "other"):
        # Both are held still: neither waits for itself.
        with holding(tmp_path / "link"), holding(tmp_path / "other"):
            pass
        with holding(tmp_path / "run" / ".." / "run"):
            pass
    assert module._held.get() == frozenset()
    # Held no longer: it is taken anew, by a lock of its own.
    with holding(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


def test_the_owner_s_name_is_all_that_the_lock_says(tmp_path):
    (tmp_path / LOCK).write_text("process 123456789 on " + "x" * 300)
    with holding(tmp_path):
        said = (tmp_path / LOCK).read_text()
    assert said == f"process {os.getpid()} on {socket.gethostname()}"


def test_an_owner_s_name_is_untrusted_text(tmp_path, monkeypatch):
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(handle, b"\x1b[31mnobody")
    monkeypatch.setattr(module, "try_lock", lambda _: False)
    monkeypatch.setattr(module, "wait_for_lock", lambda _: None)
    try:
        with pytest.warns(XaikitWarning, match=r"another run \(\\x1b\[31mnobody\)"):
            assert module._own(handle, tmp_path, True)
    finally:
        os.close(handle)


def test_a_lock_is_no_link_to_a_file_elsewhere(tmp_path):
    (tmp_path / "elsewhere").write_text("stays")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot write"), holding(tmp_path / "run"):
        pytest.fail("was held")
    assert (tmp_path / "elsewhere").read_text() == "stays"


def test_a_lock_that_its_last_owner_removed_is_made_again(tmp_path, monkeypatch):
    real, removed = module.try_lock, []

    def late(handle):
        if not removed:
            (tmp_path / LOCK).unlink()
            removed.append(handle)
        return real(handle)

    monkeypatch.setattr(module, "try_lock", late)
    before = len(os.listdir("/proc/self/fd"))
    with holding(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_lock_is_removed_while_it_is_held(tmp_path, monkeypatch):
    """Once it is let go of, the file may be another run's."""
    real, held = os.unlink, []

    def watched(path):
        handle = os.open(path, os.O_RDWR)
        held.append(replacing.try_lock(handle) is False)
        os.close(handle)
        real(path)

    monkeypatch.setattr(os, "unlink", watched)
    with holding(tmp_path):
        pass
    assert held == [True]


def test_many_threads_take_turns(tmp_path):
    inside, most = [], []

    def work():
        with holding(tmp_path / "run"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert most == [1] * 8


def test_a_file_system_without_locks_is_said_and_no_obstacle(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(replacing.fcntl, "flock", none)
    with pytest.warns(XaikitWarning, match="without locks"), holding(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(UsageError, match="file"), holding(tmp_path / name):
            pass
