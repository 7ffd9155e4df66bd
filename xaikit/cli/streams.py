"""Standard streams that may be closed, full, or of an encoding that lacks what is printed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from typing import Any, TextIO

from xaikit.errors import XaikitWarning
from xaikit.text import ENCODING_ERRORS, printable


def prepare() -> None:
    """Make standard output and error take whatever is written to them, if anything at all."""
    with contextlib.suppress(OSError):
        # A file opened while a standard handle is closed would take its number, and with it
        # whatever a library prints.
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(handle)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ENCODING_ERRORS)


def finish() -> None:
    """Write out what is buffered; a reader that went away, or a full disk, is an error here."""
    sys.stdout.flush()


def give_up_output() -> None:
    """Drop what is still buffered for standard output, which would fail again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def named_warnings() -> Any:
    """Say what libraries warn of as lines that name the library, and our own, each once."""
    said: set[str] = set()

    def say(library: str, message: object) -> None:
        line = f"warning: {library}{printable(' '.join(str(message).split()))}"
        if line not in said:
            said.add(line)
            with contextlib.suppress(OSError, ValueError):
                print(line, file=sys.stderr)

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        own = issubclass(category, XaikitWarning)
        say("" if own else f"{_library(filename)}: ", message)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"{record.name.partition('.')[0]}: ", record.getMessage())

    handler = Handler(level=logging.WARNING)
    before = warnings.showwarning
    warnings.showwarning = show
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        warnings.showwarning = before
        logging.getLogger().removeHandler(handler)


def _library(filename: str) -> str:
    """The package that a file is of: ``torch`` for ``…/site-packages/torch/nn/modules.py``."""
    parts = filename.replace("\\", "/").split("/")
    for folder in ("site-packages", "dist-packages"):
        if folder in parts[:-1]:
            return printable(parts[parts.index(folder) + 1].removesuffix(".py"))
    return printable(parts[-1].removesuffix(".py")) or "python"
