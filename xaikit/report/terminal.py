"""Curves in a terminal: braille lines, lettered points, plain ASCII where braille cannot go.

Our own: rich has no charts, and plotext draws on one figure for the whole process. This is
something for rich to print, which takes the width it is given and shades the band of random edge
sets behind the curves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from xaikit.report.curves import curve_name

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
_MARGIN = 7
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def terminal_chart(
    curves: Sequence[Mapping[str, Any]],
    band: Mapping[str, Any] | None = None,
    *,
    width: int = 76,
    height: int = 12,
    what: str = "",
) -> Chart:
    """A small chart of curves over the share of entries, logarithmic.

    Parameters
    ----------
    curves : sequence of dict
        ``ranking``, ``shares`` and ``fractions``; the first is drawn on top.
    band : dict, optional
        Random edge sets: ``shares``, and ``low`` and ``high`` in the unit of ``fractions``.
    width, height : int
        Characters; a narrower terminal narrows the chart.
    what : str
        What ``fractions`` are where they are no shares of the full effect: the axis is in numbers.

    Returns
    -------
    Chart
        For rich to print. Points carry letters, so that no colour is needed.
    """
    return Chart(tuple(curves), band or None, width, height, what)


@dataclass(frozen=True)
class Chart:
    """A chart that fits itself to the console it is printed on."""

    curves: tuple[Mapping[str, Any], ...]
    band: Mapping[str, Any] | None
    width: int
    height: int
    what: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield from self.lines(min(self.width, options.max_width), plain=options.ascii_only)

    def lines(self, width: int, *, plain: bool = False) -> list[Text]:
        """The chart's lines at a width, in ASCII alone where `plain`."""
        canvas = _Canvas(max(width - _MARGIN, 12), self.height, self._shares(), self._ends())
        if self.band:
            shares, low, high = (self.band[key] for key in ("shares", "low", "high"))
            canvas.shade(shares, low, high, ":" if plain else "░")
        for place in reversed(range(len(self.curves))):
            curve, colour = self.curves[place], COLOURS[place % len(COLOURS)]
            canvas.line(curve["shares"], curve["fractions"], colour, plain)
        for place in reversed(range(len(self.curves))):
            curve, colour = self.curves[place], COLOURS[place % len(COLOURS)]
            canvas.points(curve["shares"], curve["fractions"], _letter(place), f"bold {colour}")
        what = self.what or "share of the full effect"
        title = Text(f"{what}, by share of logit entries edited", "dim")
        axis = Text(canvas.ticks(), no_wrap=True)
        rows = canvas.rows(plain, "{:.2g}" if self.what else "{:.0%}")
        return [title, *rows, axis, *self._legend(width, plain)]

    def _legend(self, width: int, plain: bool) -> Iterator[Text]:
        names = [
            (_letter(place), f"bold {COLOURS[place % len(COLOURS)]}", curve_name(curve))
            for place, curve in enumerate(self.curves)
        ]
        if self.band:
            names.append((":" if plain else "░", "dim", "random"))
        line = Text()
        for mark, style, name in names:
            if line and len(line) + len(name) + 2 > width:
                yield line
                line = Text()
            line.append(mark, style).append(f" {name}  ")
        yield line

    def _shares(self) -> tuple[float, float]:
        shares = [s for curve in self.curves for s in curve["shares"]] or [0.001, 1.0]
        low, high = min(shares), max(shares)
        return (low, high) if low < high else (low / 10, high)

    def _ends(self) -> tuple[float, float]:
        values = [v for curve in self.curves for v in curve["fractions"]]
        low, high = min([0.0, *values]), max([0.0 if self.what else 1.0, *values])
        return low, high if high > low else low + 1.0


def _letter(place: int) -> str:
    return chr(ord("a") + place % 26)


class _Canvas:
    """Characters of the plot, and the dots that braille puts inside one."""

    def __init__(
        self, width: int, height: int, shares: tuple[float, float], ends: tuple[float, float]
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right = (math.log10(share) for share in shares)
        self.low, self.high = ends
        self.cells = [[(" ", "")] * width for _ in range(height)]

    def column(self, share: float, columns: int) -> int:
        """Place of a share among so many columns."""
        part = (math.log10(share) - self.left) / (self.right - self.left)
        return round(min(max(part, 0.0), 1.0) * (columns - 1))

    def row(self, value: float, rows: int) -> int:
        """Place of a value among so many rows, the highest first."""
        part = (value - self.low) / (self.high - self.low)
        return round((1 - min(max(part, 0.0), 1.0)) * (rows - 1))

    def samples(self, shares: Sequence[float], values: Sequence[float], columns: int) -> list[Any]:
        """(column, value) of a curve, linear in the logarithm of the share between points."""
        found = []
        for i in range(len(shares) - 1):
            start, stop = (self.column(share, columns) for share in shares[i : i + 2])
            for column in range(start, stop + 1):
                part = (column - start) / max(stop - start, 1)
                found.append((column, values[i] + part * (values[i + 1] - values[i])))
        return found

    def shade(
        self, shares: Sequence[float], low: Sequence[float], high: Sequence[float], mark: str
    ) -> None:
        """Fill the band."""
        ends = zip(
            self.samples(shares, low, self.width),
            self.samples(shares, high, self.width),
            strict=True,
        )
        for (column, bottom), (_, top) in ends:
            for row in range(self.row(top, self.height), self.row(bottom, self.height) + 1):
                self.cells[row][column] = (mark, "dim")

    def line(
        self, shares: Sequence[float], values: Sequence[float], style: str, plain: bool
    ) -> None:
        """Draw a line: dots of braille, or a full stop a column."""
        across, down = (1, 1) if plain else (2, 4)
        previous: int | None = None
        for column, value in self.samples(shares, values, self.width * across):
            row = self.row(value, self.height * down)
            start = row if previous is None else previous
            # A steep line is filled from the last column's height on, so that it stays one line.
            span = range(min(row, start), max(row, start) + 1)
            for dot in span:
                self._dot(dot, column, across, down, style)
            previous = row

    def _dot(self, row: int, column: int, across: int, down: int, style: str) -> None:
        y, x = row // down, column // across
        if across == 1:
            self.cells[y][x] = (".", style)
            return
        before = ord(self.cells[y][x][0])
        kept = before if 0x2800 <= before < 0x2900 else 0x2800
        self.cells[y][x] = (chr(kept | _DOTS[row % down][column % across]), style)

    def points(
        self, shares: Sequence[float], values: Sequence[float], mark: str, style: str
    ) -> None:
        """Mark the measured points."""
        for share, value in zip(shares, values, strict=True):
            self.cells[self.row(value, self.height)][self.column(share, self.width)] = (mark, style)

    def rows(self, plain: bool, number: str) -> list[Text]:
        """The canvas with its vertical axis, labelled by a format."""
        marked = {self.row(value, self.height): value for value in (self.low, 0.0, 0.5, 1.0)}
        # What lies beyond the axis comes to its end.
        marked[0] = self.high
        lines = []
        for place, cells in enumerate(self.cells):
            label = number.format(marked[place]) if place in marked else ""
            line = Text(f"{label:>5} " + ("|" if plain else "│"), no_wrap=True)
            for character, style in cells:
                line.append(character, style)
            lines.append(line)
        return lines

    def ticks(self) -> str:
        """The horizontal axis: powers of ten."""
        line = [" "] * self.width
        for power in range(math.ceil(self.left - 1e-9), math.floor(self.right + 1e-9) + 1):
            label = f"{10.0**power * 100:g}%"
            start = min(self.column(10.0**power, self.width), self.width - len(label))
            line[start : start + len(label)] = label
        return " " * _MARGIN + "".join(line)
