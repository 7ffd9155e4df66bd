"""Runs in processes of their own, which start quickly: forks of a server that has imported it all.

The server is a fresh process of one thread, so that a fork of it is safe.
"""

from __future__ import annotations

import builtins
import functools
import io
import multiprocessing
import os
import signal
import stat
import sys
import time
import traceback
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from xaikit.errors import XaikitError

_context = multiprocessing.get_context("forkserver")
LOOKS, LOOK = 24, 5.0
"""Looks at a run, and seconds between them, after which it hangs; other work may share the machine.
"""


@functools.cache
def _serve() -> None:
    """Start the server, which finds modules by the environment alone."""
    _context.set_forkserver_preload(["trust.preloaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, *sys.path]))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Child:
    """A run in a process of its own, which says on its standard error what happened."""

    def __init__(
        self,
        folder: Path,
        mode: str,
        *,
        kill_at: int = 0,
        count: Path | None = None,
        **changed: Any,
    ) -> None:
        _serve()
        self.log = folder.parent / f"log-{time.monotonic_ns()}"
        told = (str(folder), mode, str(self.log), kill_at, count and str(count), changed)
        self.process = _context.Process(target=_run, args=told)
        self.process.start()

    def kill(self) -> None:
        """End it as nothing can be prepared for."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def wait(self) -> str:
        """What is wrong with its end; nothing where it ended as it should."""
        for _ in range(LOOKS):
            self.process.join(LOOK)
        if self.process.is_alive():
            self.kill()
            return f"did not end in {LOOKS * LOOK:.0f} s"
        if self.process.exitcode in (0, -signal.SIGKILL):
            return ""
        return f"exit status {self.process.exitcode}: {self.said()[-300:]!r}"

    @property
    def killed(self) -> bool:
        """Whether it ended by a kill."""
        return self.process.exitcode == -signal.SIGKILL

    def said(self) -> str:
        """Its standard error."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


def _run(
    folder: str, mode: str, log: str, kill_at: int, count: str | None, changed: dict[str, Any]
) -> None:
    sys.stdout = sys.stderr = open(log, "w", encoding="utf-8")  # noqa: SIM115
    from trust.small_runs import make

    events = Events(Path(folder), kill_at) if kill_at or count else None
    code = 0
    try:
        make(Path(folder), mode, **changed)
    except XaikitError as error:
        print(f"error: {error}")
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 3
    if events is not None and count is not None:
        Path(count).write_text("\n".join(events.places))
    sys.stdout.flush()
    os._exit(code)


class Events:
    """Count what a run does to its folder, and end the process at one of these events.

    An event is a file opened for writing, flushed, renamed or removed, or a folder made or
    removed. Before every other flush the file loses its second half, as it does where not all of
    it was on the disk.
    """

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.folder, self.kill_at = os.path.realpath(folder), kill_at
        self.places: list[str] = []
        self._flush = os.fsync
        os.fsync = self._flushed
        for module in (builtins, io):
            self._watch_open(module)
        for name in ("replace", "unlink", "mkdir", "rmdir", "truncate"):
            self._watch(name)

    def _event(self, place: Any) -> bool:
        self.places.append(os.path.relpath(os.path.realpath(place), self.folder))
        return len(self.places) == self.kill_at

    def _flushed(self, handle: int) -> None:
        if self._event(f"/dev/fd/{handle}"):
            found = os.fstat(handle)
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            if len(self.places) % 2 and size:
                with open(f"/dev/fd/{handle}", "r+b") as file:
                    file.truncate(size // 2)
            _end()
        self._flush(handle)

    def _watch(self, name: str) -> None:
        real = getattr(os, name)

        def call(path: Any, *rest: Any, **more: Any) -> Any:
            if self._own(path) and self._event(path):
                _end()
            return real(path, *rest, **more)

        setattr(os, name, call)

    def _watch_open(self, module: Any) -> None:
        real = module.open

        def call(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if set(mode) & set("wax+") and self._own(file) and self._event(file):
                _end()
            return real(file, mode, *rest, **more)

        module.open = call

    def _own(self, path: Any) -> bool:
        given = isinstance(path, str | os.PathLike)
        return given and os.path.realpath(path).startswith(self.folder)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
