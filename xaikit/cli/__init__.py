"""The command line: parse options, call one stage, print one summary. No computing here.

Every command is one module, named as the command, and is imported when it is called: what
``--help`` says of it stands in `COMMANDS`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from xaikit.cli import signals, streams
from xaikit.cli.console import fail
from xaikit.errors import UsageError

HELP = """Find and test attention circuits in CLIP vision transformers.

`xaikit run-all` does everything; the other commands are its steps, in order.
Each command's --help ends with examples.
"""


class Entry(NamedTuple):
    """What the list of commands says of one."""

    name: str
    panel: str
    help: str

    @property
    def module(self) -> str:
        """The command's module, and its name there."""
        return self.name.replace("-", "_")


PIPELINE, LIVE, STUDIES, LOOK, TOOLS = "Pipeline", "Live model", "Studies", "Look", "Tools"
COMMANDS = (
    Entry("run-all", PIPELINE, "Everything below in one command, and a summary."),
    Entry("trace", PIPELINE, "Record one layer's FFN gates and the next layer's logits."),
    Entry("cluster", PIPELINE, "Group tokens by which FFN gates they open."),
    Entry("fit", PIPELINE, "Mean logits of each cluster, and a test of every edge."),
    Entry("circuit", PIPELINE, "Rank a fit's edges, keep the first, and draw them."),
    Entry("causal", PIPELINE, "Ablate and inject whole clusters in the predicted logits."),
    Entry("target-causal", PIPELINE, "What each edge contributes to the predicted logits."),
    Entry("intervene", LIVE, "Edit attention in the real forward pass."),
    Entry("baselines", STUDIES, "What clusters explain, beside controls that know nothing."),
    Entry("stability", STUDIES, "Do circuits hold across seeds, images and cluster numbers?"),
    Entry("graph", LOOK, "Join the circuits of several layers (node-link JSON)."),
    Entry("report", LOOK, "Write a run as one HTML page that needs no network."),
    Entry(
        "explain", LOOK, "Write one image as an HTML page: the attention of every layer and head."
    ),
    Entry("inspect", LOOK, "What a file holds: its shapes, its metadata and its health."),
    Entry("export", LOOK, "Write edges, effects and curves of a run as tables."),
    Entry("pairs", TOOLS, "Make pairs of images that differ in one thing."),
    Entry("models", TOOLS, "List the models, or check that xaikit reads one right."),
    Entry("env", TOOLS, "Versions, devices and threads, for a bug report."),
)
"""In the order and the panels of ``--help``; a test holds it against the commands."""


class LazyGroup(TyperGroup):
    """Lists the commands from `COMMANDS` and imports one only to run it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for entry in COMMANDS:
            stub = typer.core.TyperCommand(
                entry.name, help=entry.help, rich_help_panel=entry.panel, rich_markup_mode=None
            )
            self.commands[entry.name] = stub

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, in place of the line that stands for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import a command."""
    entry = next(each for each in COMMANDS if each.name == name)
    return getattr(import_module(f"{__name__}.{entry.module}"), entry.module)


def commands() -> Iterator[tuple[Entry, Any]]:
    """Every command with its entry; imports them all."""
    for entry in COMMANDS:
        yield entry, load_command(entry.name)


app = typer.Typer(
    name="xaikit",
    cls=LazyGroup,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from xaikit.version import xaikit_version

        typer.echo(f"xaikit {xaikit_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status.

    0; 1, a failed run; 2, wrong usage; 130, 143 and 129, ended by Ctrl-C, SIGTERM or SIGHUP.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    streams.prepare()
    try:
        with signals.obeyed(), streams.named_warnings():
            _refuse_empty(arguments)
            code = app(args=arguments, standalone_mode=False)
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


def _refuse_empty(arguments: list[str]) -> None:
    """An empty shell variable is an empty argument, which would mean the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if not argument:
            named = before if before.startswith("-") else "an argument"
            raise UsageError(f"{named} is empty: expected a value")
        if flag.startswith("--") and equals and not value:
            raise UsageError(f"{flag} is empty: expected a value")
