"""The command line: parse options, call one stage, print one summary. No computing here."""

from __future__ import annotations

import sys

import typer

from xaikit.cli import analysis, intervene, run_all, studies, trace
from xaikit.cli.console import fail

HELP = """Find and test attention circuits in CLIP vision transformers.

`xaikit run-all` does everything; the other commands are its steps, in order.
Each command's --help ends with examples.
"""

app = typer.Typer(
    name="xaikit",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for register in (
    run_all.register,
    trace.register,
    analysis.register,
    intervene.register,
    studies.register,
    trace.register_models,
):
    register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from xaikit.artifacts.records import xaikit_version

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
    """Run the command line and exit with its status: 0, 1 (failed run) or 2 (wrong usage)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments, standalone_mode=False)
    except Exception as error:
        code = fail(error, debug="--debug" in arguments)
    except KeyboardInterrupt:
        code = fail(KeyboardInterrupt(), debug=False)
    sys.exit(code if isinstance(code, int) else 0)
