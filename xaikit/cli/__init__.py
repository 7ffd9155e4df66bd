"""The command line: parse options, call one stage, print one summary. No computing here.

Every command is one module, named as the command, and is imported when it is called; so is Typer:
what ``--help`` says of all commands needs neither.
"""

from __future__ import annotations

import signal
import sys

from xaikit.cli import signals, streams
from xaikit.cli.console import fail
from xaikit.errors import UsageError


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status.

    0; 1, a failed run; 2, wrong usage; 130, 143 and 129, ended by Ctrl-C, SIGTERM or SIGHUP.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    streams.prepare()
    try:
        with signals.obeyed(), streams.named_warnings():
            _refuse_empty(arguments)
            code = _run(arguments)
            if code == 130:
                # What Typer makes of an interruption, without a word.
                raise signals.Stopped(signals.asked[-1] if signals.asked else signal.SIGINT)
            streams.finish()
    except (Exception, KeyboardInterrupt) as error:
        code = fail(error, debug="--debug" in arguments)
        if isinstance(error, KeyboardInterrupt):
            signals.said.set()
            if signals.asked:
                signals.leave(code)
        if isinstance(error, OSError):
            streams.give_up_output()
    sys.exit(code if isinstance(code, int) else 0)


def _run(arguments: list[str]) -> object:
    # Typer takes longer to import than that page to draw.
    if arguments in (["--help"], ["-h"]):
        from xaikit.cli.overview import write_overview

        write_overview()
        return 0
    from xaikit.cli.app import app

    return app(args=arguments, standalone_mode=False)


def _refuse_empty(arguments: list[str]) -> None:
    """An empty shell variable is an empty argument, which would mean the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if not argument:
            named = before if before.startswith("-") else "an argument"
            raise UsageError(f"{named} is empty: expected a value")
        if flag.startswith("--") and equals and not value:
            raise UsageError(f"{flag} is empty: expected a value")
