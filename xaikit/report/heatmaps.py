"""One picture a head: where each cluster's rows attend, as a matrix and as maps of the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.artifacts.tokens import short_names
from xaikit.report.mosaic import Mosaic, outline
from xaikit.report.plain_figures import LESS, MORE, blank, plain_figures, save
from xaikit.text import printable

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.tensors import Fit

QUANTITIES = {
    "weight": "mean attention logit (logit)",
    "contrast": "contrast: logit against the mean of all rows, centred (logit)",
    "zscore": "permutation z-score",
}
"""Colour bar label of each quantity that a picture may show."""

_WIDTH = 13.0


@dataclass(frozen=True)
class _Panel:
    """What all pictures of one call share; `order` lists the clusters shown, largest first."""

    order: list[int]
    labels: list[str]
    columns: list[str]
    prefix: list[str]
    grid: tuple[int, int] | None
    clusters_as_columns: bool
    unit: str
    title: str
    note: str


def draw_contrasts(
    fit: Fit, edges: Sequence[Edge], out_dir: str | Path, title: str, **drawn: Any
) -> list[Path]:
    """`draw_heatmaps` of a fit's contrast ``[K, H, N]``, with some edges outlined."""
    return draw_heatmaps(
        fit.contrast.numpy(),
        fit.counts.numpy(),
        prefix_kinds=fit.prefix_kinds,
        kinds=fit.kinds,
        grid=(fit.grid[0], fit.grid[1]) if fit.grid else None,
        quantity="contrast",
        title=title,
        out_dir=out_dir,
        edges=[edge.key for edge in edges],
        destination=fit.destination,
        **drawn,
    )


@plain_figures()
def draw_heatmaps(
    values: Float[np.ndarray, "K H N"],
    counts: Int64[np.ndarray, " K"],
    *,
    prefix_kinds: Sequence[str],
    grid: tuple[int, int] | None,
    quantity: str,
    title: str,
    out_dir: str | Path,
    edges: Iterable[tuple[int, int, int]] | None = None,
    destination: str = "token",
    kinds: Sequence[str] = (),
    dpi: int = 110,
    suffixes: Sequence[str] = ("png",),
) -> list[Path]:
    """Draw ``head_<h>.png`` for every head.

    The matrix has a row for each cluster that holds rows, largest first, and a column for each
    destination; the maps below it lay the patch columns out as the image. Colours are centred on
    zero; their limit is the 99.5th percentile of the head's patch columns, and an arrow on the
    colour bar says that values go beyond it.

    Parameters
    ----------
    values : float [K, H, N]
        What to draw; ``[K, H, K]`` for cluster destinations.
    counts : int64 [K]
        Rows of each cluster.
    prefix_kinds : sequence of str
        What the leading columns are that are no patches (`TowerInfo.prefix_kinds`).
    grid : (int, int), optional
        Rows and columns of patches; None draws no maps.
    quantity : str
        A key of `QUANTITIES`, or the colour bar's label itself.
    title : str
        First line of each picture, before the head.
    out_dir : path
        Made where missing.
    edges : iterable of (cluster, head, destination), optional
        Outlined.
    destination : str
        ``token`` or ``cluster``.
    kinds : sequence of str
        What the last clusters are (`Features.kinds`).
    dpi : int
        Pixels of an inch.
    suffixes : sequence of str
        ``png``, ``svg`` or ``pdf``, a file for each.

    Returns
    -------
    list of Path
        In the order of heads.
    """
    values, counts = np.asarray(values, np.float64), np.asarray(counts)
    numbers = [str(k) for k in range(len(counts) - len(kinds))]
    names = [*numbers, *short_names(kinds)]
    panel = _panel(counts, names, prefix_kinds, grid, quantity, title, destination == "cluster")
    marked: dict[int, list[tuple[int, int]]] = {}
    for cluster, head, column in edges or ():
        if cluster in panel.order:
            marked.setdefault(head, []).append((panel.order.index(cluster), column))
    paths = []
    for head in range(values.shape[1]):
        shown = values[panel.order, head] if panel.order else np.zeros((1, values.shape[2]))
        if panel.clusters_as_columns:
            shown = shown[:, panel.order or [0]]
            known = {cluster: place for place, cluster in enumerate(panel.order)}
            cells = [(row, known[k]) for row, k in marked.get(head, []) if k in known]
        else:
            cells = marked.get(head, [])
        figure = _draw(shown, panel, f"{panel.title}, head {head}", cells)
        for suffix in suffixes:
            paths.append(Path(out_dir) / f"head_{head}.{suffix}")
            save(figure, paths[-1], suffix, dpi)
    return paths


def colour_limit(shown: Float[np.ndarray, "K N"], prefix_tokens: int) -> float:
    """Half-width of the colour scale: prefix columns, often far larger, do not set it."""
    patches = shown[:, prefix_tokens:] if shown.shape[1] > prefix_tokens else shown
    if not patches.size:
        return 1.0
    limit = float(np.percentile(np.abs(patches), 99.5))
    return limit or float(np.abs(shown).max()) or 1.0


def _panel(
    counts: np.ndarray,
    names: Sequence[str],
    prefix_kinds: Sequence[str],
    grid: tuple[int, int] | None,
    quantity: str,
    title: str,
    clusters_as_columns: bool,
) -> _Panel:
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k] > 0]
    empty = [k for k in range(len(counts)) if counts[k] == 0]
    note = "rows: queries, clusters of n tokens, largest first"
    if empty:
        listed = ", ".join(map(str, empty[:12])) + (" …" if len(empty) > 12 else "")
        note += f"; {len(empty)} empty, not shown: {listed}"
    return _Panel(
        order=order,
        labels=[f"{names[k]} · n={counts[k]:,}" for k in order] or ["no rows"],
        columns=[names[k] for k in order],
        prefix=[] if clusters_as_columns else short_names(prefix_kinds),
        grid=None if clusters_as_columns else grid,
        clusters_as_columns=clusters_as_columns,
        unit=QUANTITIES.get(quantity, printable(quantity)),
        title=printable(title),
        note=note,
    )


def _draw(
    shown: Float[np.ndarray, "K N"], panel: _Panel, title: str, cells: Sequence[tuple[int, int]]
) -> Figure:
    rows, prefix = len(shown), len(panel.prefix)
    matrix_height = float(np.clip(0.24 * rows, 1.2, 9.5))
    maps = Mosaic.of(rows, panel.grid) if panel.grid else None
    map_height = maps.height + 0.2 if maps else 0.0
    height = 1.0 + matrix_height + 0.6 + map_height
    figure = blank(_WIDTH, height)
    figure.text(0.012, 1 - 0.3 / height, title, fontsize=12, weight="bold")
    count = f"{len(cells)} edge{'s' if len(cells) > 1 else ''}"
    outlined = f"; {count} of the circuit outlined" if cells else ""
    figure.text(0.012, 1 - 0.55 / height, panel.note + outlined, fontsize=9, color="#444444")
    limit = colour_limit(shown, prefix)
    style = {"cmap": _colours(), "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    bottom = (map_height + 0.6) / height
    image = _matrix(figure, (bottom, matrix_height / height), shown, panel, style, cells)
    if maps:
        patches = [(k, j - prefix) for k, j in cells if j >= prefix]
        box = (1.25 / _WIDTH, 0.12 / height, maps.width / _WIDTH, maps.height / height)
        maps.draw(figure.add_axes(box), shown[:, prefix:], panel.labels, style, patches)
    axes = figure.add_axes((12.05 / _WIDTH, bottom, 0.16 / _WIDTH, matrix_height / height))
    low, high = bool((shown < -limit).any()), bool((shown > limit).any())
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[low, high]
    figure.colorbar(image, cax=axes, extend=extend).ax.tick_params(labelsize=8)
    figure.text(0.988, 1 - 0.3 / height, panel.unit, fontsize=9, ha="right")
    return figure


def _colours() -> Any:
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.colors import LinearSegmentedColormap

    found = LinearSegmentedColormap.from_list("less and more", [LESS, "#f7f7f7", MORE])
    return found.with_extremes(bad="white")


def _matrix(
    figure: Figure,
    span: tuple[float, float],
    shown: Float[np.ndarray, "K N"],
    panel: _Panel,
    style: dict[str, Any],
    cells: Sequence[tuple[int, int]],
) -> AxesImage:
    """Draw the matrix, prefix columns apart and wider; return the patch columns' image."""
    left, right = 1.25, 11.9
    prefix = len(panel.prefix)
    prefix_width = min(max(0.36, 7 / max(shown.shape[1], 1)) * prefix, 3.0)
    gap = 0.1 if prefix else 0.0
    size = 8 if len(shown) <= 24 else 6.5
    first = None
    if prefix:
        first = figure.add_axes((left / _WIDTH, span[0], prefix_width / _WIDTH, span[1]))
        first.imshow(shown[:, :prefix], aspect="auto", **style)
        first.set_xticks(range(prefix), panel.prefix, fontsize=8, weight="bold")
        if len(shown) <= 24:
            _write_values(first, shown[:, :prefix], style["vmax"])
        outline(first, [(k, j) for k, j in cells if j < prefix])
        left += prefix_width + gap
    axes = figure.add_axes((left / _WIDTH, span[0], (right - left) / _WIDTH, span[1]))
    image = axes.imshow(shown[:, prefix:], aspect="auto", **style)
    columns = max(shown.shape[1] - prefix, 1)
    outline(
        axes,
        [(k, j - prefix) for k, j in cells if j >= prefix],
        # A column of a long sequence is a hair's breadth: show its outline five points wide.
        max(0.0, 5 / 72 / ((right - left) / columns) - 1),
    )
    _label_columns(axes, columns, panel)
    (first or axes).set_yticks(range(len(shown)), panel.labels, fontsize=size)
    if first:
        axes.set_yticks([])
    return image


def _write_values(axes: Axes, values: Float[np.ndarray, "K P"], limit: float) -> None:
    """Write prefix values into their cells: they are the ones beyond the colour scale."""
    for (k, j), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 * limit else "black"
        text = f"{value:+.1f}" if abs(value) < 100 else f"{value:+.0f}"
        axes.text(j, k, text, fontsize=6.5, ha="center", va="center", color=colour)


def _label_columns(axes: Axes, columns: int, panel: _Panel) -> None:
    if panel.clusters_as_columns:
        labels = panel.columns or ["no rows"]
        axes.set_xticks(range(len(labels)), labels, fontsize=8 if columns <= 40 else 6)
        axes.set_xlabel("keys: destination cluster", fontsize=9)
    elif panel.grid and panel.grid[0] * panel.grid[1] == columns:
        rows, width = panel.grid
        step = -(-rows // 16)
        starts = np.arange(0, rows, step)
        axes.set_xticks(starts * width - 0.5, [f"row {r}" for r in starts], fontsize=8, ha="left")
        lines = np.arange(1, rows) * width - 0.5
        axes.vlines(lines, 0, 1, "#666666", linewidth=0.6, transform=axes.get_xaxis_transform())
        axes.set_xlabel(f"keys: destination patch, {rows} rows of {width}", fontsize=9)
    else:
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlabel("keys: destination token", fontsize=9)
