"""`graph`: join the circuits of several layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.stages.graph import GraphOptions, graph_of_folder


@o.command("graph", examples=["xaikit graph xaikit-out --min-share 0.2"])
def graph(
    session: Session,
    options: GraphOptions,
    run_dir: Annotated[
        Path, typer.Argument(help="What `xaikit run-all` wrote; the graph goes there.")
    ] = Path("xaikit-out"),
) -> None:
    """Join the circuits of several layers (node-link JSON)."""
    path, data = graph_of_folder(run_dir, options)
    kinds = [edge["kind"] for edge in data["edges"]]
    heads, flows = kinds.count("head"), kinds.count("flow")
    session.result(
        {"graph": str(path), "nodes": len(data["nodes"]), "heads": heads, "flows": flows},
        f"{len(data['nodes'])} clusters, {heads} head links, {flows} flows → {path}",
    )
