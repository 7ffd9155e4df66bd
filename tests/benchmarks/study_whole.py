"""Circuits of the whole model: every ranking's curves, edited in all layers, beside random orders.

``python tests/benchmarks/study_whole.py RUN --pretrained FILE --images DIR --cells FILE`` measures
the layers of a run (``xaikit run-all --target-layer all --no-intervene``; the demo's needs no more
than ``RUN``), ``--planted SEED`` a tower of six layers with two chains of two edges and two single
edges. A line of the file is a ranking that was measured: what is there is left as it is, so that a
study that was stopped goes on. ``--table`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import xaikit
from xaikit.artifacts.run_record import run_folders
from xaikit.artifacts.tensors import Features, Fit
from xaikit.images import ImageSource
from xaikit.images.reopening import reopen
from xaikit.interventions.classifiers import classifier_for
from xaikit.rankings import KEYS
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.intervene import InterveneOptions, intervene_layers
from xaikit.stages.trace import trace_layers
from xaikit.testing import planted_tower
from xaikit.testing.planted_images import MEAN, STD
from xaikit.towers import Tower

# A name in the table, the ranking's key, and how it differs from its defaults.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{key: (key, {}) for key in KEYS if key != "attribution"},
    "attribution, 1 step": ("attribution", {"ig_steps": 1}),
    "attribution, 5 steps": ("attribution", {"ig_steps": 5}),
}
RANDOM = "random"
Parts = list[tuple[Features, Fit]]


def of_run(given: argparse.Namespace) -> tuple[Tower, ImageSource, Parts]:
    """The model, images and layers of a run."""
    parts = [
        (Features.load(folder / "features.safetensors"), Fit.load(folder / "fit.safetensors"))
        for folder in run_folders(given.run)
    ]
    tower = xaikit.load_tower(parts[0][1].provenance.origin.model, given.pretrained)
    described = parts[0][0].info.source
    source = xaikit.open_images(images=given.images) if given.images else reopen(described)
    return tower, source, parts


def of_planted(given: argparse.Namespace, folder: str) -> tuple[Tower, ImageSource, Parts]:
    """A tower whose edges are known, with guided clusters of all its layers."""
    options: dict[str, Any] = {"token_edges": 0, "content_edges": 2, "chains": 2}
    planted = planted_tower(layers=6, seed=given.planted, **options)
    files = planted.save(folder, 96, seed=given.planted)
    tower = xaikit.load_tower(str(files.config), str(files.weights), mean=MEAN, std=STD)
    source = xaikit.open_images(images=files.images)
    pairs = [(layer, layer + 1) for layer in range(planted.spec.layers - 1)]
    parts = []
    for traced in trace_layers(tower, source, pairs, workers=1):
        features = cluster(traced, num_clusters=planted.spec.groups + 1, holdout=0.5)
        found = fit(traced, features, destination="cluster", num_permutations=2, controls=False)
        parts.append((features, found))
    return tower, source, parts


def measured(given: argparse.Namespace, name: str, subject: tuple[Tower, Any, Parts]) -> dict:
    """One row of the table: a ranking on held-out images, or the band of random orders."""
    tower, source, parts = subject
    ids = parts[0][0].info.images
    key, more = VARIANTS.get(name, ("weight", {}))
    bands = [float(share) for share in given.bands.split(",")]
    options = InterveneOptions(
        rankings=(key,),
        # A band's mean has a curve's place: those of the ranking beside it are not kept.
        shares=bands[:1] if name == RANDOM else [float(s) for s in given.shares.split(",")],
        band_shares=bands,
        draws=given.draws if name == RANDOM else 0,
        max_images=given.test,
        score_images=given.rows_images if key == "rows" else given.score_images,
        edges=0,
        nodes=False,
        batch_size=given.batch_size,
        workers=1,
        **more,
    )
    classifier = classifier_for(tower, source, None, ids) if tower.info.classes else None
    found = intervene_layers(tower, source, parts, ids=ids, classifier=classifier, options=options)
    return {
        "name": name,
        "images": [len(parts[0][0].discovery), found.num_images],
        "full": found.full_effect,
        "curves": found.random if name == RANDOM else found.curves,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    if not cells:
        return "nothing measured"
    classes = any(curve["metric"] == "accuracy" for curve in cells[0]["curves"])
    heads = ["edges by", "removed: 1 %", "10 %", "left where kept: 1 %", "10 %"]
    heads += ["own class, 10 % kept"] * classes + ["CMD", "CPR"]
    discovery, tested = cells[0]["images"]
    lines = [
        f"{discovery} discovery and {tested} held-out images, full effect "
        f"{cells[0]['full']['cosine']:.3f}",
        "",
        f"| {' | '.join(heads)} |",
        f"| --- |{' ---: |' * (len(heads) - 1)}",
    ]
    order = [*VARIANTS, RANDOM]
    for cell in sorted(cells, key=lambda cell: order.index(cell["name"])):
        lines.append(f"| {cell['name']} | {' | '.join(row(cell, classes))} |")
    return "\n".join(lines)


def row(cell: dict[str, Any], classes: bool) -> list[str]:
    """One row's figures; of random orders, with the band that 95 % of them are in."""
    full = cell["full"]["cosine"]

    def figure(mode: str, metric: str, share: float, scale: float, start: float = 0.0) -> str:
        curve = found(cell, mode, metric)
        if share not in curve["shares"]:
            return ""
        place = curve["shares"].index(share)
        names = ("mean", "low", "high") if "mean" in curve else ("effects",)
        values = [start + scale * curve[name][place] for name in names]
        least, most = (f"{value:.3f}" for value in sorted(values[1:])) if values[1:] else ("", "")
        return f"{values[0]:.3f}" + (f" ({least} to {most})" if most else "")

    cells = [figure(mode, "cosine", share, 1 / full) for mode in ("remove", "keep") for share in AT]
    if classes:
        cells.append(figure("keep", "accuracy", AT[1], -1.0, 1.0))
    kept = found(cell, "keep", "cosine")
    return [*cells, f"{kept['cmd']:.3f}", f"{kept['cpr']:.3f}"]


AT = (0.01, 0.1)


def found(cell: dict[str, Any], mode: str, metric: str) -> dict[str, Any]:
    """A cell's curve."""
    return next(c for c in cell["curves"] if (c["mode"], c["metric"]) == (mode, metric))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, nargs="?", help="folder of run-all")
    parser.add_argument("--planted", type=int, help="seed of a planted tower instead")
    for name in ("--pretrained", "--images"):
        parser.add_argument(name)
    parser.add_argument("--cells", type=Path, required=True, help="file of what was measured")
    parser.add_argument("--rank", default=";".join([*VARIANTS, RANDOM]), help="separated by ;")
    parser.add_argument("--shares", default="0.001,0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.5")
    parser.add_argument("--bands", default="0.01,0.1,0.2,0.5")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--test", type=int, default=48, help="most held-out images")
    parser.add_argument("--score-images", type=int, default=128, help="most discovery images")
    parser.add_argument("--rows-images", type=int, default=128, help="the same, of `rows`")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    given = parser.parse_args()
    there = {cell["name"] for cell in read(given.cells)}
    missing = [name for name in given.rank.split(";") if name not in there]
    if missing and not given.table:
        with tempfile.TemporaryDirectory() as folder:
            subject = of_run(given) if given.planted is None else of_planted(given, folder)
            for name in missing:
                line = json.dumps(measured(given, name, subject))
                with given.cells.open("a") as file:
                    file.write(line + "\n")
                print(name, flush=True)
    print(table(read(given.cells)))


if __name__ == "__main__":
    main()
