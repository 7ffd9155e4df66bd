"""`export`: the tables of a run, for pandas, R, DuckDB or a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.errors import UsageError


@o.command(
    "export",
    examples=[
        "xaikit export xaikit-out --parquet tables",
        "xaikit export xaikit-out --csv tables",
    ],
)
def export(
    session: Session,
    run_dir: Annotated[Path, typer.Argument(help="What `xaikit run-all` wrote.")] = Path(
        "xaikit-out"
    ),
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Folder for Parquet files (needs pyarrow).")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Folder for CSV files.")] = None,
) -> None:
    """Write edges, effects and curves of a run as tables."""
    from xaikit.stages.export import export_run, write_csv, write_parquet

    if parquet is None and csv is None:
        raise UsageError("nothing to write: pass --parquet DIR, --csv DIR or both")
    found = export_run(run_dir)
    written = []
    if parquet is not None:
        written += write_parquet(found, parquet)
    if csv is not None:
        written += write_csv(found, csv)
    rows = {name: len(next(iter(columns.values()))) for name, columns in found.items()}
    session.result(
        {"tables": rows, "files": [str(path) for path in written]},
        *(f"{count:>9,} {name}" for name, count in rows.items()),
        f"→ {', '.join(str(folder) for folder in (parquet, csv) if folder)}",
    )
