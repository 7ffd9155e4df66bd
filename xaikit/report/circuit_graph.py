"""The circuit as a graph for print: clusters as boxes, heads as lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.report.plain_figures import LESS, MORE, blank, plain_figures, save_as
from xaikit.text import printable

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from matplotlib.axes import Axes

FLOW = "#8a929c"
_WIDE, _HIGH, _PITCH_DOWN, _PITCH = 1.45, 0.36, 0.47, 3.5
"""Of a box, and from one to the next, in inches."""
_TOP, _BOTTOM, _LEFT = 0.62, 0.62, 0.12
_TURNS = 6


@dataclass(frozen=True)
class Node:
    """A cluster, or a token, in a column."""

    column: int
    label: str
    note: str = ""
    picture: UInt8[np.ndarray, "row column 3"] | None = None


@dataclass(frozen=True)
class Link:
    """Heads in which the queries of one node attend to the keys of another.

    Attributes
    ----------
    strength : float
        In [0, 1], the width of the line.
    """

    query: str
    key: str
    heads: str
    strength: float
    against: bool = False


@plain_figures()
def draw_circuit_graph(
    nodes: Mapping[str, Node],
    links: Sequence[Link],
    columns: Sequence[str],
    flows: Mapping[tuple[str, str], float],
    words: Mapping[str, str],
    out: str | Path,
    *,
    dpi: int = 130,
) -> Path:
    """Draw nodes in columns and a curve for each link, with its heads written on it.

    Parameters
    ----------
    nodes : mapping of str to Node
    links : sequence of Link
        Ends inside one column are joined by an arc at its right.
    columns : sequence of str
        Their titles, left to right.
    flows : mapping of (str, str) to float
        Share of a node's tokens that are in another one, a column on.
    words : mapping
        ``title``, and what lines ``for`` and ``against`` say.
    out : path
        ``.png``, ``.pdf`` or ``.svg``; PNG otherwise.

    Returns
    -------
    Path
    """
    places = _places(nodes, links, flows)
    deepest = max((y for _, y in places.values()), default=0.0)
    arcs = any(nodes[link.query].column == nodes[link.key].column for link in links)
    width = 2 * _LEFT + (len(columns) - 1) * _PITCH + _WIDE + (1.9 if arcs else 0.0)
    width, height = max(width, 4.6), _TOP + deepest + _HIGH + _BOTTOM
    figure = blank(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height - _TOP, -_TOP))
    axes.set_axis_off()
    axes.text(_LEFT, -_TOP + 0.2, printable(words["title"]), fontsize=9, weight="bold", va="center")
    for at, title in enumerate(columns):
        axes.text(_LEFT + at * _PITCH, -0.14, printable(title), fontsize=7, color="#545c66")
    for (source, target), share in flows.items():
        _line(axes, places[source], places[target], 0.5 + 2.5 * share, FLOW, alpha=0.3)
    spread, drawn = _neighbours(links), dict.fromkeys(nodes, 0)
    bends: dict[frozenset[str], int] = {}
    for link in links:
        pair = frozenset((link.query, link.key))
        bends[pair] = bends.get(pair, -1) + 1
        # Lines are apart from one another where fewer of them meet.
        quiet = link.key if spread[link.query] >= spread[link.key] else link.query
        _link(axes, link, places, quiet, drawn[quiet], bends[pair])
        drawn[quiet] += 1
    for key, node in nodes.items():
        _box(axes, node, places[key])
    _legend(axes, words, height - _TOP - 0.3)
    return save_as(figure, out, dpi)


def _places(
    nodes: Mapping[str, Node], links: Sequence[Link], flows: Mapping[tuple[str, str], float]
) -> dict[str, tuple[float, float]]:
    """Left upper corners; nodes move to the mean of their neighbours, which undoes crossings."""
    near: dict[str, list[str]] = {key: [] for key in nodes}
    for one, other in [*((link.query, link.key) for link in links), *flows]:
        near[one].append(other)
        near[other].append(one)
    rows: dict[int, list[str]] = {}
    for key, node in nodes.items():
        rows.setdefault(node.column, []).append(key)
    for keys in rows.values():
        keys.sort(key=lambda key: -len(near[key]))
    for _ in range(_TURNS):
        for column, keys in rows.items():
            rank = {k: at / max(1, len(r) - 1) for r in rows.values() for at, k in enumerate(r)}
            others = {k: [rank[n] for n in near[k] if nodes[n].column != column] for k in keys}
            middle = {k: float(np.mean(others[k])) if others[k] else rank[k] for k in keys}
            keys.sort(key=middle.__getitem__)
    longest = max((len(keys) for keys in rows.values()), default=0)
    return {
        key: (_LEFT + column * _PITCH, (at + (longest - len(keys)) / 2) * _PITCH_DOWN)
        for column, keys in rows.items()
        for at, key in enumerate(keys)
    }


def _neighbours(links: Sequence[Link]) -> dict[str, int]:
    """How many other nodes each one is linked to."""
    found: dict[str, set[str]] = {}
    for link in links:
        found.setdefault(link.query, set()).add(link.key)
        found.setdefault(link.key, set()).add(link.query)
    return {key: len(others) for key, others in found.items()}


def _link(
    axes: Axes,
    link: Link,
    places: Mapping[str, tuple[float, float]],
    quiet: str,
    turn: int,
    bend: int,
) -> None:
    """Draw a line, its heads near its end at the node `quiet`, which has `turn` of them already."""
    ends = places[link.query], places[link.key]
    colour = LESS if link.against else MORE
    width = 0.6 + 2.6 * link.strength
    curve = _line(axes, *ends, width, colour, dashed=link.against, bend=bend)
    arc = ends[0][0] == ends[1][0]
    away = 0.3 + 0.13 * (turn % 4) if arc else 0.06 + 0.07 * (turn % 4)
    # Curves run from left to right, arcs from the query to the key.
    first = quiet == link.query if arc else places[quiet][0] == min(x for x, _ in ends)
    axes.text(
        *_along(curve, away if first else 1 - away),
        link.heads,
        fontsize=5.5,
        color=colour,
        ha="center",
        va="center",
        zorder=3,
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
    )


def _line(
    axes: Axes,
    query: tuple[float, float],
    key: tuple[float, float],
    width: float,
    colour: str,
    *,
    dashed: bool = False,
    alpha: float = 0.8,
    bend: int = 0,
) -> np.ndarray:
    """Draw a cubic curve between two boxes; its four points."""
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    (x1, y1), (x2, y2) = query, key
    if x1 == x2:
        right, reach = x1 + _WIDE, 0.35 + 0.16 * abs(y1 - y2) + 0.12 * bend
        reach = min(reach, 1.7)
        heights = y1 + 0.35 * _HIGH, y2 + 0.65 * _HIGH
        points = [(right, heights[0]), (right + reach, heights[0])]
        points += [(right + reach, heights[1]), (right, heights[1])]
    else:
        (left, start), (end, stop) = sorted(((x1, y1), (x2, y2)))
        left, half, lift = left + _WIDE, 0.5 * (end - left - _WIDE), 0.12 * bend
        start, stop = start + _HIGH / 2, stop + _HIGH / 2
        points = [(left, start), (left + half, start - lift)]
        points += [(end - half, stop - lift), (end, stop)]
    codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    style: Any = (0, (4, 2)) if dashed else "solid"
    axes.add_patch(
        PathPatch(
            Curve(points, codes),
            facecolor="none",
            edgecolor=colour,
            linewidth=width,
            linestyle=style,
            alpha=alpha,
            capstyle="butt",
        )
    )
    return np.array(points)


def _along(curve: np.ndarray, part: float) -> tuple[float, float]:
    """A point of a cubic curve."""
    other = 1 - part
    weights = np.array([other**3, 3 * other**2 * part, 3 * other * part**2, part**3])
    x, y = weights @ curve
    return float(x), float(y)


def _box(axes: Axes, node: Node, place: tuple[float, float]) -> None:
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            _WIDE,
            _HIGH,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="#f5f6f8",
            edgecolor="#9aa2ac",
            linewidth=0.6,
            zorder=4,
        )
    )
    left = x + 0.08
    if node.picture is not None:
        side = _HIGH - 0.06
        box = (x + 0.03, x + 0.03 + side, y + _HIGH - 0.03, y + 0.03)
        few = max(node.picture.shape[:2]) <= 48
        how = "nearest" if few else "antialiased"
        axes.imshow(node.picture, extent=box, aspect="auto", zorder=5, interpolation=how)
        left = x + side + 0.1
    axes.text(
        left,
        y + _HIGH * (0.33 if node.note else 0.5),
        printable(node.label),
        fontsize=7,
        va="center",
        zorder=5,
    )
    if node.note:
        style: Any = {"fontsize": 5.5, "color": "#545c66", "va": "center", "zorder": 5}
        axes.text(left, y + _HIGH * 0.73, printable(node.note), **style)


def _legend(axes: Axes, words: Mapping[str, str], y: float) -> None:
    for at, (side, colour) in enumerate((("for", MORE), ("against", LESS))):
        x = _LEFT + 2.5 * at
        style: Any = "solid" if side == "for" else (0, (4, 2))
        axes.plot([x, x + 0.26], [y, y], color=colour, linewidth=2, linestyle=style)
        axes.text(x + 0.34, y, printable(words[side]), fontsize=6.5, va="center")
    axes.text(
        _LEFT,
        y + 0.16,
        "numbers on a line: its heads; width: size of the largest contrast",
        fontsize=6.5,
        va="center",
        color="#545c66",
    )
