"""What to say of an option that a command does not have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

WRITE = ("--out", "--out-dir", "--parquet", "--csv", "--heatmap-dir", "--plot", "--figures")
"""Options that say where something is written; no command has them all."""


def unknown_option(error: Any) -> str:
    """The message of Typer's error, and what the command has in place of the option."""
    own = [
        name
        for each in error.ctx.command.get_params(error.ctx)
        for name in (*each.opts, *each.secondary_opts)
        if name.startswith("--")
    ]
    return f"{error.message}{instead(error.option_name, own)}"


def instead(name: str, own: Sequence[str]) -> str:
    """What to pass in place of an option that is none of a command's `own`; empty where nothing is.

    Dashes are not compared: every option has them, which makes `--out` most of `--quiet`.
    """
    plain = {each.lstrip("-"): each for each in own}
    near = [plain[each] for each in get_close_matches(name.lstrip("-"), plain, 1)]
    if name in WRITE:
        near = [each for each in own if each in WRITE]
    if not near:
        return ""
    return f": did you mean {' or '.join(near)}?"
