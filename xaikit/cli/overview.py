"""The page of ``xaikit --help``: the commands in their panels.

Typer would draw the same, and takes longer to import than all of this.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from xaikit.cli.table import COMMANDS, HELP

if TYPE_CHECKING:
    from collections.abc import Iterable

_OPTIONS = (
    ("--version", "Print the version and exit."),
    ("--install-completion", "Install completion for the current shell."),
    ("--show-completion", "Show completion for the current shell, to copy or change it."),
    ("--help, -h", "Show this message and exit."),
)


def write_overview() -> None:
    """Write the page to standard output."""
    console = Console(highlight=False)
    console.print("\n [yellow]Usage:[/] [bold]xaikit [OPTIONS] COMMAND [ARGS]...[/]\n")
    for paragraph in HELP.strip().split("\n\n"):
        words = " ".join(paragraph.split()).replace("`", "")
        console.print(Text(words), style="dim" if paragraph != HELP.split("\n")[0] else "")
        console.print()
    console.print(_panel("Options", _OPTIONS))
    for title, entries in groupby(COMMANDS, key=lambda entry: entry.panel):
        console.print(_panel(title, ((entry.name, entry.help) for entry in entries)))
    console.print()


def _panel(title: str, rows: Iterable[tuple[str, str]]) -> Panel:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1), expand=True)
    table.add_column(style="bold cyan", no_wrap=True, width=_WIDTH)
    table.add_column(ratio=1)
    for name, words in rows:
        table.add_row(name, words)
    return Panel(table, title=title, title_align="left", border_style="dim", box=box.ROUNDED)


_WIDTH = max(len(name) for name, _ in (*_OPTIONS, *((e.name, e.help) for e in COMMANDS)))
