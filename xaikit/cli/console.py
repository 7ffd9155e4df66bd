"""What a person or a script sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xaikit.cli.signals import last_words
from xaikit.errors import XaikitError, as_typed
from xaikit.text import json_printable, printable

if TYPE_CHECKING:
    from rich.console import Console

LOG_SECONDS = 10.0
"""Between two progress lines in a log."""


def fail(error: BaseException, *, debug: bool) -> int:
    """Say in one line what went wrong; return the exit status."""
    if debug and not _is_usage(error):
        shown = "".join(traceback.format_exception(error))
        _to_stderr(printable(shown, keep="\n"), end="")
    if isinstance(error, KeyboardInterrupt):
        return _line(*last_words(error))
    if isinstance(error, BrokenPipeError):
        return 1
    if isinstance(error, XaikitError):
        return _line(as_typed(error), error.exit_code)
    if _is_usage(error):
        said = _usage(error)
        if not said:
            return 2  # no arguments: the page of help has been shown
        context = getattr(error, "ctx", None)
        hint = f"see `{context.command_path} --help`" if context is not None else ""
        return _line(_with_hint(said, hint), 2)
    if type(error).__name__ in ("Exit", "Abort"):
        return int(getattr(error, "exit_code", 1))
    if _is_out_of_memory(error):
        return _line("out of memory; pass a smaller --batch-size", 1)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _line(f"{where}{error.strerror or error}", 1)
    words = " ".join(str(error).split())
    return _line(f"{type(error).__name__}: {words} (unexpected; --debug shows where)", 1)


def _is_out_of_memory(error: BaseException) -> bool:
    # Of the processor's memory torch says so in words alone.
    names = (type(error).__name__ == "OutOfMemoryError", "can't allocate memory" in str(error))
    return isinstance(error, MemoryError) or any(names)


def _usage(error: Any) -> str:
    """What Typer says of wrong usage."""
    if not hasattr(error, "possibilities"):
        return str(error.format_message()).rstrip(".").replace(": Value error, ", ": ")
    from xaikit.cli.unknown import unknown_option  # for an option that is mistyped

    return unknown_option(error)


def _with_hint(said: str, hint: str) -> str:
    """What is wrong and where to look, in one pair of brackets."""
    if not hint:
        return said
    return f"{said[:-1]}; {hint})" if said.endswith(")") else f"{said} ({hint})"


def _is_usage(error: BaseException) -> bool:
    # Typer carries its own copy of click, so the class cannot be imported from one place.
    return hasattr(error, "format_message") and getattr(error, "exit_code", None) == 2


def _line(message: str, code: int) -> int:
    from xaikit.launcher import reports_error

    if reports_error():
        say_error(message)
    return code


def say_error(message: str) -> None:
    """One line on standard error, where there is one."""
    _to_stderr(f"error: {printable(message.strip())}")


def _to_stderr(text: str, end: str = "\n") -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)


class Session:
    """The console of one command.

    Attributes
    ----------
    out : Console
        Standard output, for results.
    err : Console
        Standard error, for progress and warnings.
    json : bool
        Print one JSON object instead of tables.
    leads : bool
        Whether this is the one process of a torchrun that prints.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        from xaikit.launcher import launched

        self.json = json
        self.leads = launched()[0] == 0
        quiet = quiet or not self.leads
        self.quiet = quiet
        width = None if sys.stdout.isatty() else 120
        self.out: Console = _console(width=width)
        self.err: Console = _console(stderr=True, quiet=quiet, soft_wrap=True)

    def warn(self, message: str) -> None:
        """A warning, shown also with ``--quiet``."""
        if not self.leads:
            return
        _to_stderr(f"warning: {printable(message)}")

    def note(self, message: str) -> None:
        """Something worth a line, not with ``--quiet``."""
        self.err.print(printable(message))

    def result(self, fields: dict[str, Any], *renderables: Any) -> None:
        """Print a result: `fields` as JSON, or the renderables."""
        if not self.leads:
            return
        if self.json:
            import orjson

            data = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
            print(json_printable(data.decode()))
            return
        for item in renderables:
            # A line is for the terminal to wrap: a path that was broken cannot be copied.
            self.out.print(item, soft_wrap=isinstance(item, str))

    @contextmanager
    def progress(self, title: str = "") -> Iterator[Any]:
        """Yield a progress callback: a bar on a terminal, plain lines in a log."""
        if self.quiet:
            from xaikit.progress import silent

            yield silent
        elif self.err.is_terminal:
            with self._bars(title) as update:
                yield update
        else:
            yield _Log(title)

    @contextmanager
    def _bars(self, title: str) -> Iterator[Any]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                speed = task.finished_speed or task.speed
                return Text(f"{speed:,.1f}/s" if speed else "")

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bars:
            tasks: dict[str, Any] = {}

            def update(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    label = f"{title} · {what}" if title else what
                    tasks[what] = bars.add_task(label, total=total)
                if done < bars.tasks[tasks[what]].completed:
                    # Another pass of the same name has a speed of its own.
                    bars.reset(tasks[what])
                # A run of many stages would fill the screen with what is done.
                bars.update(tasks[what], completed=done, total=total, visible=done < total)

            yield update


def _console(**options: Any) -> Console:
    """A console that reads no markup, and prints the text it is given as text."""
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **settings: Any) -> Text:
            return super().render_str(printable(text, keep="\n"), **settings)

    return Plain(highlight=False, markup=False, emoji=False, **options)


class _Log:
    """Plain progress lines: now and then, and at each end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < self._done.get(what, done + 1):
            # Another pass of the same name, or the first.
            self._start[what] = (now, done)
        self._done[what] = done
        start, first = self._start[what]
        if now - self._last < LOG_SECONDS:
            return
        self._last = now
        rate = (done - first) / max(now - start, 1e-9)
        speed = f", {rate:,.1f}/s, {(total - done) / rate:,.0f} s left" if rate > 0 else ""
        of, _, noun = what.rpartition(": ")
        prefix = "".join(f"{part}: " for part in (self._title, of) if part)
        _to_stderr(f"{prefix}{done:,}/{total:,} {noun}{speed}")


def duration(seconds: float) -> str:
    """A duration for people."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
