"""`inspect`: what an artefact holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session


@o.command(
    "inspect",
    examples=[
        "xaikit inspect xaikit-out/fit.safetensors",
        "xaikit inspect xaikit-out/circuit.json --json",
    ],
)
def inspect(
    session: Session,
    file: Annotated[
        Path, typer.Argument(help="An artefact: .safetensors, .json, or a trace folder.")
    ],
) -> None:
    """What a file holds: its shapes, its metadata and its health."""
    from xaikit.report.inspection import inspect_file

    found = inspect_file(file)
    session.result(found, *_lines(found))


def _lines(found: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from xaikit.report.inspection import shown_value
    from xaikit.report.page.provenance import size_text
    from xaikit.report.summaries import table

    stage = found["stage"] or "no stage"
    head = Text(f"{found['file']}: {stage}, {found['kind']}, {size_text(found['bytes'])}")
    fields = [[Text(key), Text(shown_value(value))] for key, value in found["fields"].items()]
    lines: list[Any] = [head, table("metadata", ["<field", "<value"], fields)]  # type: ignore[arg-type]
    if found["tensors"]:
        columns = ["<tensor", "<dtype", "<shape", "size", "min", "mean", "max", "not finite"]
        lines.append(table("tensors", columns, [_row(row) for row in found["tensors"]]))
    lines += [Text(f"! {line}") for line in found["health"]] or [Text("healthy")]
    return lines


def _row(row: dict[str, Any]) -> list[str]:
    from xaikit.report.page.provenance import size_text

    numbers = ["" if row[key] is None else f"{row[key]:.4g}" for key in ("min", "mean", "max")]
    shape = " × ".join(map(str, row["shape"])) or "one number"
    bad = f"{row['not_finite']:,}" + (" (of a sample)" if row["sampled"] else "")
    return [row["name"], row["dtype"], shape, size_text(row["bytes"]), *numbers, bad]
