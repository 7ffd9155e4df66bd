"""SIGINT, SIGTERM and SIGHUP end a command within two seconds, and leave nothing half written.

Python runs a signal's handler between two steps of the main thread, and an exception then has to
find its way out past threads that are still decoding. A thread that hears of signals by itself
ends what takes too long: one operation of torch, say, for as long as it releases Python's lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

GRACE_SECONDS = 1.2
_ENDS = {
    getattr(signal, name): word
    for name, word in (
        ("SIGINT", "interrupted"),
        ("SIGTERM", "terminated"),
        ("SIGHUP", "the terminal hung up"),
    )
    if hasattr(signal, name)
}

asked: list[int] = []
"""Signals that have been heard."""
said = threading.Event()
"""Set once the end has been explained, so that it is not explained twice."""


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def last_words(error: KeyboardInterrupt) -> tuple[str, int]:
    """What to say of an end by a signal, and the exit status."""
    number = getattr(error, "number", signal.SIGINT)
    word = _ENDS.get(number, "interrupted")
    return f"{word}; the same command goes on from what is complete", 128 + int(number)


@contextlib.contextmanager
def obeyed() -> Iterator[None]:
    """Let signals end the command; before and after, they do what they did.

    A signal that is ignored, as nohup ignores SIGHUP, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {each: signal.getsignal(each) for each in _ENDS}
    ours = {
        each: now
        for each, now in found.items()
        if now in (signal.SIG_DFL, signal.default_int_handler)
    }
    heard, told = socket.socketpair()
    for end in (heard, told):
        end.setblocking(end is heard)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    for each in ours:
        signal.signal(each, _stop)
    watcher = threading.Thread(target=_watch, args=(heard,), name="xaikit-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        # A watcher that has heard a signal stays: the way out may be long.
        signal.set_wakeup_fd(before)
        for each, handler in ours.items():
            signal.signal(each, handler)
        told.close()


def _stop(number: int, frame: FrameType | None) -> None:
    asked.append(number)
    raise Stopped(number)


def _watch(heard: socket.socket) -> None:
    """Wait for a signal that ends the command; end it where it does not end by itself."""
    with heard:
        while numbers := heard.recv(64):
            number = next((number for number in numbers if number in _ENDS), None)
            if number is not None:
                time.sleep(GRACE_SECONDS)
                _end(number)


def _end(number: int) -> None:
    from xaikit.cli.console import say_error
    from xaikit.launcher import rank_of

    message, code = last_words(Stopped(number))
    if rank_of() == 0 and not said.is_set():
        say_error(message)
    leave(code)


def leave(code: int) -> None:
    """End the process now: tearing down what libraries hold can take longer than the run's end."""
    from xaikit.artifacts.replacing import remove_unfinished

    remove_unfinished()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
