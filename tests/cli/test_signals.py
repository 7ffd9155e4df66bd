"""Signals while a command runs, and what is left of one that cannot end by itself."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from xaikit.artifacts import replacing
from xaikit.cli import console, signals
from xaikit.cli.signals import Stopped, last_words, obeyed


@pytest.fixture
def handlers() -> Iterator[None]:
    """Handlers as they were, whatever a test does to them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def watchers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "xaikit-signals"]


def test_signals_are_the_command_s_while_it_runs_and_what_they_were_afterwards(handlers) -> None:
    def own(number: int, frame: Any) -> None:
        """Of whoever calls the command from Python."""

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = signal.set_wakeup_fd(-1)
    running = set(watchers())
    try:
        with obeyed():
            assert signal.getsignal(signal.SIGINT) is signals._stop
            assert signal.getsignal(signal.SIGHUP) is signals._stop
            assert signal.getsignal(signal.SIGTERM) is own
            (watcher,) = set(watchers()) - running
            told = signal.set_wakeup_fd(-1)
            assert told != -1
            signal.set_wakeup_fd(told)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
        watcher.join(timeout=60)
        assert not watcher.is_alive()
    finally:
        signal.set_wakeup_fd(before)


def test_a_command_in_another_thread_leaves_signals_alone() -> None:
    found: list[Any] = []

    def command() -> None:
        with obeyed():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=command)
    thread.start()
    thread.join(timeout=60)
    assert found == [before]


def test_a_signal_that_is_heard_is_kept_and_stops_the_command(monkeypatch) -> None:
    monkeypatch.setattr(signals, "asked", [])
    with pytest.raises(Stopped) as stopped:
        signals._stop(signal.SIGTERM, None)
    assert signals.asked == [signal.SIGTERM]
    assert last_words(stopped.value) == (
        "terminated; the same command goes on from what is complete",
        143,
    )
    assert last_words(KeyboardInterrupt())[1] == 130


def test_what_does_not_end_by_itself_is_ended_after_a_moment(monkeypatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(signals.time, "sleep", ended.append)
    monkeypatch.setattr(signals, "_end", ended.append)
    heard, told = socket.socketpair()
    # A signal that ends nothing, of a library's own, is none to wait for.
    told.send(bytes([signal.SIGUSR1]))
    told.send(bytes([signal.SIGUSR1, signal.SIGHUP]))
    told.close()
    signals._watch(heard)
    assert ended == [signals.GRACE_SECONDS, signal.SIGHUP]
    assert signals.GRACE_SECONDS < 2


@pytest.mark.parametrize(
    ("rank", "told", "said"),
    [("0", False, "terminated; the same"), ("1", False, None), ("0", True, None)],
)
def test_an_end_is_said_once_and_by_the_first_process(monkeypatch, rank, told, said) -> None:
    lines: list[Any] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(console, "say_error", lines.append)
    monkeypatch.setattr(signals, "leave", lines.append)
    monkeypatch.setattr(signals, "said", threading.Event())
    if told:
        signals.said.set()
    signals._end(signal.SIGTERM)
    assert lines.pop() == 143
    assert [line.startswith(said) for line in lines] == ([True] if said else [])


def test_who_leaves_flushes_what_was_said_and_removes_what_is_unfinished(monkeypatch) -> None:
    done: list[Any] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush(self) -> None:
            done.append(self.name)
            raise OSError("nobody reads")

    monkeypatch.setattr(replacing, "remove_unfinished", lambda: done.append("removed"))
    monkeypatch.setattr(sys, "stdout", Stream("out"))
    monkeypatch.setattr(sys, "stderr", Stream("err"))
    monkeypatch.setattr(os, "_exit", done.append)
    signals.leave(129)
    monkeypatch.undo()
    assert done == ["removed", "out", "err", 129]
