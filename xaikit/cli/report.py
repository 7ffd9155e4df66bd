"""`report`: one page of what a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session


@o.command(
    "report",
    examples=[
        "xaikit report xaikit-out",
        "xaikit report xaikit-out --out page.html --vocabulary words.txt",
        "xaikit report xaikit-out --figures figures",
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
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="Folder for every figure as SVG and as PNG for print."),
    ] = None,
) -> None:
    """Write a run as one HTML page that needs no network."""
    from xaikit.report.page import Naming, write_report
    from xaikit.report.page.provenance import size_text

    naming = Naming(wanted=names, vocabulary=vocabulary)
    with session.progress("report") as progress:
        path = write_report(run_dir, out, naming=naming, progress=progress)
    size = path.stat().st_size
    fields: dict[str, Any] = {"report": str(path), "bytes": size}
    lines = [f"→ {path} ({size_text(size)})"]
    if figures is not None:
        from xaikit.report.page.static import write_figures

        drawn = [str(each) for each in write_figures(run_dir, figures)]
        fields["figures"] = drawn
        lines.append(f"→ {len(drawn)} figures in {figures}")
    session.result(fields, *lines)
