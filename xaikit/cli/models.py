"""`models`: which models can be read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.errors import XaikitError


@o.command(
    "models",
    examples=["xaikit models", "xaikit models siglip --json", "xaikit models --check ViT-B-16"],
)
def models(
    session: Session,
    pattern: Annotated[
        str | None, typer.Argument(help="Only names that contain this.", metavar="TEXT")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Run the self-check on this model (random weights).")
    ] = None,
) -> None:
    """List the models, or check that xaikit reads one right."""
    from xaikit.towers import build_for_check, list_models, self_check

    if check is not None:
        result = self_check(build_for_check(check))
        if not result.passed:
            raise XaikitError(result.describe())
        session.result({"model": check, "passed": result.passed}, result.describe())
        return
    rows = [row for row in list_models() if pattern is None or pattern.lower() in row.name.lower()]
    session.result({"models": [asdict(row) for row in rows]}, *_table(rows))


def _table(rows: list[Any]) -> list[Any]:
    from rich.table import Table

    if not rows:
        return ["no name in this list contains it; plain vision transformers of timm are timm/NAME"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "family"):
        table.add_column(name)
    for name in ("layers", "heads", "tokens", "width"):
        table.add_column(name, justify="right")
    table.add_column("supported", overflow="fold")
    for row in rows:
        cells = [row.layers, row.heads, row.tokens, row.width]
        numbers = [str(cell) if cell else "" for cell in cells]
        table.add_row(
            row.name, row.family, *numbers, "yes" if row.supported else f"no: {row.reason}"
        )
    supported = sum(row.supported for row in rows)
    return [
        table,
        f"{supported} of {len(rows)} supported; also timm/NAME for plain vision transformers",
    ]
