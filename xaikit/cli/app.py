"""The Typer application: a command is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from xaikit.cli.table import COMMANDS, HELP, Entry


class LazyGroup(TyperGroup):
    """Lists the commands from `COMMANDS` and imports one only to run it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for entry in COMMANDS:
            stub = typer.core.TyperCommand(
                entry.name, help=entry.help, rich_help_panel=entry.panel, rich_markup_mode=None
            )
            self.commands[entry.name] = stub

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The page that `xaikit --help` shows without this module."""
        from xaikit.cli.overview import write_overview  # for a page that is seldom asked for

        write_overview()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, in place of the line that stands for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import a command."""
    entry = next(each for each in COMMANDS if each.name == name)
    return getattr(import_module(f"xaikit.cli.{entry.module}"), entry.module)


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
