"""p-values of a layer's edges as a picture: level, were there no effect at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xaikit.report.plain_figures import blank, plain_figures, save_as
from xaikit.text import printable


@plain_figures()
def draw_calibration(counts: Sequence[int], title: str, out: str | Path, *, dpi: int = 130) -> Path:
    """Draw how many edges have a p-value in each part of [0, 1].

    Parameters
    ----------
    counts : sequence of int
        Edges that can be tested, in equal parts of [0, 1].
    title : str
    out : path
        ``.png``, ``.pdf`` or ``.svg``; PNG otherwise.

    Returns
    -------
    Path
    """
    figure = blank(3.6, 2.3)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    parts, total = len(counts), sum(counts)
    axes.bar(
        [(at + 0.5) / parts for at in range(parts)], counts, width=0.9 / parts, color="#0072B2"
    )
    level = axes.axhline(total / parts, color="#555555", linestyle="--", linewidth=1)
    axes.legend([level], ["level without any effect"], frameon=False, fontsize=7)
    axes.set_title(f"{printable(title)}: {total:,} edges with a test", fontsize=8, loc="left")
    axes.set_xlabel("p-value", fontsize=8)
    axes.set_ylabel("edges", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    return save_as(figure, out, dpi)
