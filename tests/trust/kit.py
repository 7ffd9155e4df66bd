"""What the rows share: a case ends in time, in its room, and in a result or in one clear line."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xaikit.errors import XaikitError, as_typed

SECONDS = 10.0
ROOM = 2 << 30
_RINGS, _RING = 18, 5.0
"""Rings of a clock, and seconds between them, after which nothing will end. They are counted while
the process runs; a case's own limit is of processor time, which other work does not change either.
"""


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes
    ----------
    value : object
        What was returned, where it was not refused.
    refused : str
        The line it was refused with, or nothing.
    failure : str
        What is wrong with the end, or nothing.
    """

    value: Any = None
    refused: str = ""
    failure: str = ""


class Hang(BaseException):
    """Nothing ended for so long that nothing will."""


def ended(act: Callable[[], Any], *also: type[Exception], seconds: float = SECONDS) -> Ended:
    """Run a case.

    Parameters
    ----------
    act : callable
    *also : type
        Errors beside `XaikitError` that are one clear line, where the case is below the stages.
    seconds : float
        Of processor time; a case that is a whole run takes more than others.
    """
    start, before = time.process_time(), _peak()
    try:
        with _alarm(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Ended(value=act())
    except (XaikitError, *also) as error:
        found = _refused(as_typed(error))
    except Hang:
        found = Ended(failure=f"did not end in {_rings(seconds) * _RING:.0f} s")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        return Ended(failure=f"{type(error).__name__} at {where}: {str(error)[:200]!r}")
    used, grown = time.process_time() - start, _peak() - before
    if used > seconds and not found.failure:
        return Ended(failure=f"took {used:.1f} s")
    if grown > ROOM and not found.failure:
        return Ended(failure=f"took {grown / 2**30:.1f} GiB")
    return found


def _refused(line: str) -> Ended:
    clear = line.strip() and len(line.splitlines()) == 1 and len(line) <= 2000
    return Ended(refused=line) if clear else Ended(failure=f"not one clear line: {line[:300]!r}")


def _peak() -> int:
    """The most memory this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _rings(seconds: float) -> int:
    return int(_RINGS * seconds / SECONDS)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    heard = 0

    def ring(*_: Any) -> None:
        nonlocal heard
        heard += 1
        if heard == _rings(seconds):
            raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, _RING, _RING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """Let a bomb end in MemoryError, not in an end of the machine."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, hard))
