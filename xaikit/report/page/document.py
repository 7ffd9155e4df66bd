"""The page itself: one HTML file that loads nothing."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.file_names import REPORT
from xaikit.artifacts.makers import of_others
from xaikit.artifacts.replacing import replacing
from xaikit.errors import UsageError, XaikitError
from xaikit.progress import Progress, silent
from xaikit.report.directions import direction
from xaikit.report.page import answer
from xaikit.report.page.clusters import cluster_cards
from xaikit.report.page.doubts import capital, doubts
from xaikit.report.page.edges import edge_rows, layer_record
from xaikit.report.page.faithfulness import baselines, measured
from xaikit.report.page.images import add_images, image_records
from xaikit.report.page.naming import Naming, add_factors, add_words, model_for
from xaikit.report.page.parts import RunParts, read_run
from xaikit.report.page.pictures import Pictures
from xaikit.report.page.provenance import provenance
from xaikit.report.page.shell import page_text
from xaikit.report.page.sweep import sweep_figure
from xaikit.report.page.why import add_why
from xaikit.text import printable

if TYPE_CHECKING:
    from xaikit.towers import Tower

SCRIPTS = (
    "base.js",
    "store.js",
    "clusters.js",
    "edges.js",
    "paint.js",
    "edge_detail.js",
    "heatmap.js",
    "layout.js",
    "graph.js",
    "graph_panel.js",
    "export.js",
    "curves.js",
    "image.js",
    "shell.js",
    "main.js",
)


def write_report(
    run_dir: str | Path,
    out: str | Path | None = None,
    *,
    naming: Naming | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the page of a run folder.

    Parameters
    ----------
    run_dir : path
        What `run-all` or the single commands wrote into.
    out : path, optional
        By default ``report.html`` in the folder.
    naming : Naming, optional
        How clusters get words; by default from the run's model and its own vocabulary.
    progress : Progress
        Of the model's pass over the images for the words.

    Returns
    -------
    Path
        The page: one file that needs no network and no server.

    Raises
    ------
    UsageError
        Where the folder holds no run, its parts do not belong together, or its ``report.html`` is
        somebody else's.
    """
    run = read_run(run_dir)
    path = Path(out) if out is not None else run.root / REPORT
    if out is None and path.is_file() and of_others(path):
        raise UsageError(f"{path} was not written by xaikit: pass another `out=`, or move it")
    text = render(run, naming or Naming(), progress)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(run: RunParts, naming: Naming, progress: Progress = silent) -> str:
    """The page as text."""
    pictures = Pictures(run.layers[0])
    cards = [card for parts in run.layers for card in cluster_cards(parts, pictures)]
    add_factors(run, pictures, cards)
    tower, unnamed = model_for(run, pictures, naming)
    if tower is not None:
        unnamed = add_words(run, pictures, cards, tower, naming.vocabulary, progress)
    data = _data(run, pictures, cards, tower)
    origin = run.layers[0].fit.provenance.origin
    return page_text(
        "page.html.j2",
        SCRIPTS,
        data,
        title=_title(run),
        found=[
            capital(sentence)
            for sentence in answer.found(run, {card["id"]: card for card in cards})
        ],
        by_layer=answer.by_layer(run),
        doubts=doubts(run, pictures),
        overviews=_overviews(run),
        layers=data["layers"],
        cards=cards,
        sweep=sweep_figure(run.sweep),
        model=f"{printable(origin.model)} ({printable(origin.pretrained)})",
        images=len(run.layers[0].features.labels),
        heldout=len(run.layers[0].features.heldout),
        measured=data["measured"],
        directed=bool(data["objective"]),
        baselines=baselines(run),
        provenance=provenance(run, pictures.record),
        pictures=pictures,
        unnamed=unnamed,
    )


def _data(
    run: RunParts, pictures: Pictures, cards: list[dict[str, Any]], tower: Tower | None
) -> dict[str, Any]:
    """What the page's scripts read."""
    shown = image_records(run, pictures)
    layers = [layer_record(parts) for parts in run.layers]
    add_images(run, shown, layers)
    edges = edge_rows(run)
    why, why_not = _why(run, pictures, edges, tower)
    kept = ("id", "layer", "cluster", "kind", "size", "where", "notes", "words", "factor")
    return {
        "format": "xaikit-report",
        "run": run.identity,
        "title": _title(run),
        "layers": layers,
        "images": shown,
        "clusters": [{key: card[key] for key in kept} for card in cards],
        "edges": edges,
        "why": why,
        "whyNot": why_not,
        "flows": [e for e in (run.graph or {}).get("edges", []) if e.get("kind") == "flow"],
        "measured": measured(run),
        "joint": run.intervention is not None,
        "rank": _rank(run),
        "objective": objective_words(run),
        "ranked": len(run.circuit.paths) if run.circuit is not None else None,
    }


def _why(
    run: RunParts, pictures: Pictures, edges: list[dict[str, Any]], tower: Tower | None
) -> tuple[list[dict[str, str]], str]:
    """Patches that explain edges, or one line that says why there are none."""
    if tower is None:
        return [], "the model was not run for it"
    try:
        return add_why(run, pictures, tower, edges), ""
    except XaikitError as error:
        return [], printable(str(error))


def _rank(run: RunParts) -> str | None:
    circuit = run.circuit or run.layers[0].circuit
    return circuit.rank if circuit is not None else None


def objective_words(run: RunParts) -> str:
    """What a directed circuit pushes for; empty where it has no sides."""
    circuit = run.circuit or run.layers[0].circuit
    if circuit is None or not any(edge.side for edge in circuit.paths):
        return ""
    return direction(circuit)


def _title(run: RunParts) -> str:
    origin = run.layers[0].fit.provenance.origin
    layers = ", ".join(str(parts.layer) for parts in run.layers)
    return f"{printable(origin.model)}: circuits of layer{'s' * (len(run.layers) > 1)} {layers}"


def _overviews(run: RunParts) -> list[dict[str, str]]:
    found = []
    for parts in run.layers:
        if parts.overview is not None:
            data = base64.b64encode(parts.overview.read_bytes()).decode()
            title = f"layer {parts.layer} → {parts.fit.next_layer}"
            found.append({"src": f"data:image/png;base64,{data}", "title": title})
    return found
