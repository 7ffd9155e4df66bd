"""`report`: one page of what a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session


@o.command(
    "report",
    examples=[
        "xaikit report xaikit-out",
        "xaikit report xaikit-out --out page.html --vocabulary words.txt",
    ],
)
def report(
    session: Session,
    run_dir: Annotated[
        Path, typer.Argument(help="What `xaikit run-all` wrote into, its --out-dir.")
    ] = Path("xaikit-out"),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Page to write; default: report.html in the folder."),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            "--vocabulary", help="Words for clusters, one a line; default: a list of its own."
        ),
    ] = None,
    names: Annotated[
        bool,
        typer.Option("--names/--no-names", help="Run the model to find words for clusters."),
    ] = True,
) -> None:
    """Write a run as one HTML page that needs no network."""
    from xaikit.report.page import Naming, write_report
    from xaikit.report.page.provenance import size_text

    naming = Naming(wanted=names, vocabulary=vocabulary)
    with session.progress("report") as progress:
        path = write_report(run_dir, out, naming=naming, progress=progress)
    size = path.stat().st_size
    session.result({"report": str(path), "bytes": size}, f"→ {path} ({size_text(size)})")
