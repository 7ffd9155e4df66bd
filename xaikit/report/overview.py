"""One picture of a run: what clusters look like, where one attends, and what the model does."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.artifacts.edges import source_name
from xaikit.report.curves import (
    IN_NUMBERS,
    PALETTE,
    as_drawn,
    curve_name,
    percent,
)
from xaikit.report.directions import direction
from xaikit.report.live import chosen_metric, removal_curves
from xaikit.report.plain_figures import blank, plain_figures, save_as
from xaikit.text import printable

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num, UInt8
    from matplotlib.axes import Axes

    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.results import Circuit, Intervention
    from xaikit.artifacts.tensors import Fit

PICTURES = 3
"""Images shown."""


@plain_figures()
def draw_overview(
    pictures: Sequence[UInt8[np.ndarray, "row column 3"]],
    labels: Int[np.ndarray, "image token"],
    fit: Fit,
    circuit: Circuit,
    intervention: Intervention | None,
    out: str | Path,
    *,
    dpi: int = 130,
) -> Path:
    """Draw images, their tokens' clusters, the circuit's edges, R² and the removal curves.

    Parameters
    ----------
    pictures : sequence of uint8 ``[height, width, 3]``
        As the model sees them, at most `PICTURES`.
    labels : int ``[image, token]``
        Clusters of the same images.
    intervention : Intervention, optional
        Without one the last panel is left out.
    out : path
        ``.png``, ``.pdf`` or ``.svg``; PNG otherwise.

    Returns
    -------
    Path
    """
    figure = blank(15, 4.6)
    figure.set_layout_engine("constrained")
    origin = fit.provenance.origin
    model = printable(origin.model)
    figure.suptitle(
        f"{model}: FFN gates of layer {fit.layer} → attention of layer {fit.next_layer}",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    parts: Any = figure.subfigures(1, 3, width_ratios=(1.15, 1.0, 1.15))
    left, middle, right = parts
    colours = cluster_colours(len(fit.counts))
    _images(left, pictures[:PICTURES], labels, fit, colours)
    _edges(middle.subplots(), circuit.paths[:12], colours)
    if intervention is not None and intervention.curves:
        upper, lower = right.subplots(2, 1, height_ratios=(1, 2.2))
        _curves(lower, intervention)
    else:
        upper = right.subplots()
    _scores(upper, fit)
    return save_as(figure, out, dpi)


def cluster_colours(clusters: int) -> Float[np.ndarray, "cluster 3"]:
    """Colours of clusters, in [0, 1], far apart for neighbours in number."""
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib import colormaps

    wheel = colormaps["tab20"].colors  # type: ignore[attr-defined]
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return np.array([wheel[order[k % 20]] for k in range(clusters)])


def painted(
    picture: Num[np.ndarray, "row column 3"],
    labels: Int[np.ndarray, "patch"],
    grid: tuple[int, int],
    colours: Float[np.ndarray, "cluster 3"],
    strength: float = 0.55,
) -> Float[np.ndarray, "row column 3"]:
    """An image of 0 to 255 with each patch tinted in its cluster's colour, from 0 to 1."""
    rows, columns = grid
    height, width = picture.shape[:2]
    down = np.minimum(np.arange(height) * rows // height, rows - 1)
    across = np.minimum(np.arange(width) * columns // width, columns - 1)
    tint = colours[labels.reshape(rows, columns)][down][:, across]
    mixed: np.ndarray = (1 - strength) * picture / 255.0 + strength * tint
    return mixed


def _images(
    figure: Any,
    pictures: Sequence[np.ndarray],
    labels: np.ndarray,
    fit: Fit,
    colours: np.ndarray,
) -> None:
    panels = figure.subplots(
        2, max(len(pictures), 1), squeeze=False, gridspec_kw={"hspace": 0.0, "wspace": 0.0}
    )
    figure.suptitle("images, and their tokens by cluster", fontsize=11)
    grid = (fit.grid[0], fit.grid[1])
    for at, picture in enumerate(pictures):
        panels[0][at].imshow(picture, interpolation="nearest")
        patches = labels[at][fit.prefix_tokens :]
        panels[1][at].imshow(painted(picture, patches, grid, colours), interpolation="nearest")
    for axes in panels.flat:
        axes.set_axis_off()


def _edges(axes: Axes, edges: Sequence[Edge], colours: np.ndarray) -> None:
    axes.set_title("first edges of the circuit: contrast of the logit", fontsize=11)
    values = [edge.contrast for edge in edges][::-1]
    sides = [f", {edge.side}" if edge.side else "" for edge in edges]
    names = [
        f"{source_name(e)} → head {e.head} → {e.dst_name}{side}"
        for e, side in zip(edges, sides, strict=True)
    ][::-1]
    shades = [colours[edge.cluster_id] for edge in edges][::-1]
    axes.barh(range(len(values)), values, color=shades, edgecolor="#444444", linewidth=0.6)
    axes.set_yticks(range(len(values)), names, fontsize=8)
    axes.axvline(0, color="#444444", linewidth=0.8)
    for at, edge in enumerate(reversed(edges)):
        if edge.qvalue is not None and edge.qvalue > 0.05:
            note = " n.s." if edge.testable else " not testable"
            # Right of the bar, or of zero: a bar to the left would lie under it.
            axes.text(max(edge.contrast, 0.0), at, note, va="center", fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("logit")


def _scores(axes: Axes, fit: Fit) -> None:
    scores = fit.heldout_r2 or {
        "r2_mean": fit.r2_mean,
        "r2_position": fit.r2_position,
        "r2_position_cluster": fit.r2_position_cluster,
    }
    names = {"r2_mean": "mean", "r2_position": "position", "r2_position_cluster": "+ clusters"}
    where = "held out" if fit.heldout_r2 else "in sample"
    axes.set_title(f"R² of the logits, {where}", fontsize=11)
    axes.bar(
        list(names.values()), [scores[key] for key in names], color=["#bbbbbb"] * 2 + ["#0072B2"]
    )
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, found: Intervention) -> None:
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.ticker import NullFormatter

    metric = chosen_metric(found)
    directed = metric == IN_NUMBERS
    what = f"fall of {direction(found)}" if directed else "effect"
    # A prompt may be long.
    title = textwrap.fill(f"live model: {what} where edges are removed", 64)
    axes.set_title(title, fontsize=9 if directed else 11)
    for place, curve in enumerate(removal_curves(found, metric)):
        values, colour = as_drawn(curve, found)["fractions"], PALETTE[place % len(PALETTE)]
        axes.plot(curve["shares"], values, label=curve_name(curve), color=colour)
    for record in found.random:
        if record["mode"] == "remove" and record["metric"] == metric:
            drawn = as_drawn(record, found)
            axes.fill_between(
                drawn["shares"],
                drawn["low"],
                drawn["high"],
                color="#999999",
                alpha=0.5,
                label="random",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(percent)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("share of logit entries edited")
    axes.set_ylabel("fall" if directed else "share of the full effect")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
