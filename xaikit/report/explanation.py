"""One image explained, as a picture: its clusters, its edges, and what they do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.artifacts.edges import source_name
from xaikit.report.curves import PALETTE, percent
from xaikit.report.overview import cluster_colours, painted
from xaikit.report.plain_figures import blank, plain_figures, save_as
from xaikit.text import printable

if TYPE_CHECKING:
    from jaxtyping import UInt8

    # matplotlib is imported where a picture is drawn: see plain_figures.
    from matplotlib.axes import Axes

    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.explanation import Explanation

LAYERS = 4
"""Layers whose clusters are drawn: those with most of the image's first edges."""
EDGES = 6
_QUERY, _KEY = "#E69F00", "#0072B2"


@plain_figures()
def draw_explanation(
    found: Explanation, picture: UInt8[np.ndarray, "row column 3"], out: str | Path, dpi: int = 130
) -> Path:
    """Draw the image, its clusters, its first edges on it, and the curves of other views.

    Parameters
    ----------
    found : Explanation
    picture : uint8 ``[height, width, 3]``
        The image as the model sees it (`xaikit.images.framed`).
    out : path
        ``.png``, ``.pdf`` or ``.svg``; PNG otherwise.

    Returns
    -------
    Path
    """
    figure = blank(15, 7.2)
    figure.set_layout_engine("constrained")
    title = f"{printable(found.image)}: edges that matter for this image ({found.rank})"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2.1, 1.0))
    top, bottom = parts[0].subfigures(2, 1)
    _clusters(top, found, picture)
    _edges(bottom, found, picture)
    for axes, mode in zip(parts[1].subplots(2, 1), ("remove", "keep"), strict=True):
        _curves(axes, found, mode)
    return save_as(figure, out, dpi)


def shown_layers(found: Explanation) -> list[int]:
    """Places in `layers` of those that are drawn, lowest first."""
    first = [layer for layer, _ in found.layers]
    counts = [sum(edge.layer == layer for edge in found.edges) for layer in first]
    best = sorted(range(len(first)), key=lambda place: (-counts[place], place))
    return sorted(best[:LAYERS])


def _clusters(figure: Any, found: Explanation, picture: np.ndarray) -> None:
    places = shown_layers(found)
    panels = figure.subplots(1, len(places) + 1, squeeze=False)[0]
    panels[0].imshow(picture, interpolation="nearest")
    panels[0].set_title(_says(found), fontsize=9)
    prefix = len(found.prefix_kinds)
    for axes, place in zip(panels[1:], places, strict=True):
        labels = np.asarray(found.labels[place])
        colours = cluster_colours(int(labels.max()) + 1)
        grid = (found.grid[0], found.grid[1])
        axes.imshow(painted(picture, labels[prefix:], grid, colours), interpolation="nearest")
        axes.set_title(f"clusters of layer {found.layers[place][0]}", fontsize=9)
    for axes in panels:
        axes.set_axis_off()


def _says(found: Explanation) -> str:
    if not found.classes:
        return "the image"
    first = found.classes[0]
    return f"{printable(first['name'])}: {first['probability']:.0%}"


def _edges(figure: Any, found: Explanation, picture: np.ndarray) -> None:
    panels = figure.subplots(1, EDGES, squeeze=False)[0]
    for axes in panels:
        axes.set_axis_off()
    for axes, edge in zip(panels, found.edges, strict=False):
        axes.imshow(_marked(found, edge, picture), interpolation="nearest")
        axes.set_title(_name(edge), fontsize=8)
    # Words of the whole row: as words of a panel they would make room for themselves beside it.
    words = "orange: tokens that attend (queries), blue: tokens attended to (keys)"
    if found.prefix_kinds:
        words += "; tokens before the patches, such as a class token, lie on none"
    figure.text(0.005, 0.02, words, fontsize=8, in_layout=False)


def _name(edge: Edge) -> str:
    side = f", {edge.side}" if edge.side else ""
    return (
        f"layer {edge.next_layer}, head {edge.head}{side}\n"
        f"{printable(source_name(edge))} → {printable(edge.dst_name)}"
    )


def _marked(found: Explanation, edge: Edge, picture: np.ndarray) -> np.ndarray:
    """The image in grey, an edge's queries and keys tinted."""
    # matplotlib is imported where a picture is drawn: see plain_figures.
    from matplotlib.colors import to_rgb

    place = [layer for layer, _ in found.layers].index(edge.layer or 0)
    labels = np.asarray(found.labels[place])
    keys = labels == edge.dst_cluster
    if edge.dst_token is not None:
        keys = np.arange(len(labels)) == edge.dst_token
    queries = labels == edge.cluster_id
    kinds = (queries.astype(int) + 2 * keys)[len(found.prefix_kinds) :]
    query, key = np.array(to_rgb(_QUERY)), np.array(to_rgb(_KEY))
    grey = np.repeat(picture.mean(2, keepdims=True), 3, axis=2)
    colours = np.stack([np.full(3, 0.5), query, key, (query + key) / 2])
    tinted = painted(grey, kinds, (found.grid[0], found.grid[1]), colours)
    plain = painted(grey, np.zeros_like(kinds), (found.grid[0], found.grid[1]), colours, 0.0)
    inside = painted(grey * 0, kinds, (found.grid[0], found.grid[1]), _INSIDE, 1.0)
    return np.where(inside > 0, tinted, plain)


_INSIDE = np.array([[0.0] * 3, [1.0] * 3, [1.0] * 3, [1.0] * 3])


def _curves(axes: Axes, found: Explanation, mode: str) -> None:
    # matplotlib is imported where a picture is drawn: see plain_figures.
    from matplotlib.ticker import NullFormatter, PercentFormatter

    metric = str(found.curves[0]["metric"])
    lines = [c for c in found.curves if (c["metric"], c["mode"]) == (metric, mode)]
    names = {"own": "this image's edges", "common": "the run's common edges"}
    for place, curve in enumerate(lines):
        side = f", {curve['side']}" if curve.get("side") else ""
        axes.plot(
            curve["shares"],
            curve["fractions"],
            "o-",
            markersize=4,
            color=PALETTE[place],
            label=names.get(curve["ranking"], printable(curve["ranking"])) + side,
        )
    full = found.full_effect[metric]
    for band in found.random:
        if (band["metric"], band["mode"]) == (metric, mode) and full:
            low, high = (np.asarray(band[end]) / full for end in ("low", "high"))
            axes.fill_between(
                band["shares"], low, high, color="#999999", alpha=0.4, label="random edges"
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(percent)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    what = "removed" if mode == "remove" else "alone kept"
    axes.set_title(f"{what}, on {len(found.tested)} views that chose nothing", fontsize=9)
    axes.set_xlabel("share of logit entries")
    axes.set_ylabel("share of the full effect")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
