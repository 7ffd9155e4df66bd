"""One run at a time in a folder: who comes second waits, and says for whom.

The lock is the operating system's, on a file in the folder, so that it ends with its owner however
that ends; the file's text only says who that is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import torch

from xaikit.artifacts.replacing import cannot_write, try_lock, wait_for_lock
from xaikit.distributed import World
from xaikit.errors import UsageError, XaikitError, XaikitWarning
from xaikit.text import printable

LOCK = ".xaikit.lock"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())


@contextlib.contextmanager
def holding(folder: str | os.PathLike[str], world: World | None = None) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if it is not there.

    A single process waits for its turn and warns of whom it waits for. Several processes that
    share a run refuse instead: those that wait could not tell the others. A run that holds a
    folder already, or one that is on a file system without locks, goes on.

    Raises
    ------
    UsageError
        The folder cannot be written to.
    XaikitError
        Another run writes to it, and this run has several processes.
    """
    world, name = world or World(), os.path.realpath(folder)
    if name in _held.get():
        yield
        return
    with contextlib.ExitStack() as stack:
        free = not world.leads or _enter(stack, Path(name), world.size == 1)
        if not world.broadcast({"free": torch.tensor([free])} if world.leads else None)["free"]:
            raise XaikitError(f"another run writes to {folder}: wait for its end, or end it")
        token = _held.set(_held.get() | {name})
        try:
            yield
        finally:
            _held.reset(token)


def _enter(stack: contextlib.ExitStack, folder: Path, wait: bool) -> bool:
    """Take the lock until the stack ends; whether that could be done."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file; pass a folder name to write to")
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        except OSError as error:
            raise cannot_write(folder, error) from error
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, handle)
            if not _own(handle, folder, wait):
                return False
            # The last owner may have removed the file between our opening and locking it.
            if os.fstat(handle).st_nlink:
                opened.pop_all()
                break
    with contextlib.suppress(OSError):
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    stack.callback(_leave, handle, folder, absent)
    return True


def _own(handle: int, folder: Path, wait: bool) -> bool:
    """Whether the lock is ours, or there are none on this file system."""
    taken = try_lock(handle)
    if taken is None:
        _warn(f"{folder} is on a file system without locks: let no other run write there meanwhile")
    if taken is False and wait:
        # A new owner may not have said yet who it is.
        owner = printable(os.pread(handle, 200, 0).decode(errors="replace")) or "a process"
        _warn(f"another run ({owner}) writes to {folder}: waiting for its end")
        wait_for_lock(handle)
        return True
    return taken is not False


def _warn(message: str) -> None:
    warnings.warn(message, XaikitWarning, stacklevel=2)


def _leave(handle: int, folder: Path, absent: list[Path]) -> None:
    """Remove the lock while it is ours, and folders that nothing was written to."""
    with contextlib.suppress(OSError):
        os.unlink(folder / LOCK)
    os.close(handle)
    with contextlib.suppress(OSError):
        for each in absent:
            each.rmdir()
