"""Where the class token attends, a small picture for every layer and head."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.tokens import CLASS_TOKEN
from xaikit.images.transform import framed
from xaikit.report.page.explained import mean_rows
from xaikit.report.plain_figures import blank, plain_figures, save_as
from xaikit.text import printable

if TYPE_CHECKING:
    from xaikit.report.page.explained import Explained


@plain_figures()
def plot_attention(found: Explained, out: str | Path, *, dpi: int = 200) -> Path:
    """Draw the image, and a row a layer of its heads' attention from the class token.

    A model without a class token: the mean over its patches. Each picture has a scale of its own,
    and the share on tokens before the patches is written above it.

    Parameters
    ----------
    found : Explained
    out : path
        ``.png``, ``.pdf`` or ``.svg``; PNG otherwise.

    Returns
    -------
    Path
    """
    info, rows = found.tower.info, mean_rows(found)
    layers, heads, _ = rows.shape
    prefix = info.prefix_tokens
    figure = blank(2.4 + 0.75 * heads, 0.7 + 0.85 * layers)
    figure.set_layout_engine("constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2.0, 0.3 + 0.75 * heads))
    left, right = parts
    picture = left.subplots()
    picture.imshow(framed(found.picture, found.tower.preprocess))
    picture.set_axis_off()
    panels = right.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axes, row = panels[layer][head], rows[layer, head]
            axes.imshow(row[prefix:].reshape(info.grid), cmap="magma", vmin=0.0)
            axes.set_xticks([])
            axes.set_yticks([])
            if prefix:
                axes.set_title(f"{row[:prefix].sum():.0%}", fontsize=6, pad=1.5)
            if head == 0:
                axes.set_ylabel(f"layer {layer}", fontsize=7)
            if layer == layers - 1:
                axes.set_xlabel(f"head {head}", fontsize=7)
    left.text(0.5, 0.99, _words(found), ha="center", va="top", fontsize=6.5, linespacing=1.5)
    return save_as(figure, out, dpi)


def _words(found: Explained) -> str:
    """What the picture shows, in short lines."""
    info = found.tower.info
    who = "the class token attends"
    if CLASS_TOKEN not in info.prefix_kinds:
        who = "patches attend, on average"
    lines = [*wrap(printable(found.name), 34)[-2:], f"where {who},", printable(info.model)]
    if info.prefix_tokens:
        lines += ["above each picture: its share", "on tokens before the patches"]
    return "\n".join(lines)
