"""The chart of a terminal, cell by cell: curves, the band, both axes and the legend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from xaikit.report.terminal import COLOURS, _Canvas, terminal_chart


def curve(shares: list[float], fractions: list[float], name: str = "reach") -> dict[str, Any]:
    return {"ranking": name, "shares": shares, "fractions": fractions}


def plain(width: int, height: int, *curves: Any, band: Any = None, what: str = "") -> list[str]:
    """The chart's lines in ASCII."""
    chart = terminal_chart(curves, band, height=height, what=what)
    return [line.plain for line in chart.lines(width, plain=True)]


def cells(lines: list[str], height: int) -> list[str]:
    """The plot without its axis."""
    return [line[7:] for line in lines[1 : 1 + height]]


def test_a_line_goes_through_every_column_and_is_one_line() -> None:
    size = 12
    drawn = cells(plain(7 + size, size, curve([0.01, 1.0], [0.0, 1.0])), size)
    expected = [[" "] * size for _ in range(size)]
    for column in range(size):
        expected[size - 1 - column][column] = "."
        if column:
            # Filled from the height of the column before it on.
            expected[size - column][column] = "."
    expected[size - 1][0] = expected[0][size - 1] = "a"
    assert drawn == ["".join(row) for row in expected]


def test_the_band_is_shaded_between_its_ends_and_within_the_chart() -> None:
    curves = curve([0.01, 1.0], [0.0, 0.0])
    low, high = {"low": [0.25, 0.25]}, {"high": [0.5, 0.5]}
    drawn = cells(plain(19, 5, curves, band={"shares": [0.1, 1.0], **low, **high}), 5)
    # From the middle of the chart on, one row of five below the half.
    assert drawn[:4] == [" " * 12, " " * 12, " " * 6 + ":" * 6, " " * 6 + ":" * 6]
    beyond = {"shares": [0.0001, 0.01], "low": [-1.0, -1.0], "high": [2.0, 2.0]}
    drawn = cells(plain(19, 5, curves, band=beyond), 5)
    assert [row[0] for row in drawn] == [":"] * 4 + ["a"]
    assert not any(":" in row[1:] for row in drawn)


def test_a_single_share_has_an_axis_below_it() -> None:
    lines = plain(30, 4, curve([0.1], [0.5]))
    assert sum("a" in row for row in cells(lines, 4)) == 1
    assert lines[5].split() == ["1%", "10%"]
    assert lines[5].endswith("10%")


def test_falls_are_in_numbers_from_their_own_largest_down() -> None:
    drawn = plain(30, 5, curve([0.01, 1.0], [0.0, 0.05]), what="fall of “red”")
    assert drawn[0] == "fall of “red”, by share of logit entries edited"
    assert drawn[1].startswith(" 0.05 |")
    assert drawn[1].endswith("a")
    assert drawn[5].startswith("    0 |a")
    shares = plain(30, 5, curve([0.01, 1.0], [0.0, 0.05]))
    assert shares[0] == "share of the full effect, by share of logit entries edited"
    assert [row[:5].strip() for row in shares[1:6]] == ["100%", "", "50%", "", "0%"]


def test_the_first_curve_is_on_top_and_each_has_its_colour() -> None:
    same = [curve([0.01, 1.0], [0.0, 1.0], name) for name in ("one", "two")]
    other = curve([0.01, 1.0], [1.0, 0.0], "three")
    lines = terminal_chart([*same, other], height=6).lines(40)
    marks = [character for line in lines[1:7] for character in line.plain[7:]]
    assert {mark for mark in marks if mark.isalpha()} == {"a", "c"}
    styles = {str(span.style) for line in lines[1:7] for span in line.spans}
    assert {COLOURS[0], COLOURS[2], f"bold {COLOURS[0]}", f"bold {COLOURS[2]}"} <= styles


def test_a_legend_is_broken_between_names() -> None:
    names = [f"ranking {at}" for at in range(5)]
    *_, first, second, third = plain(30, 4, *(curve([0.1, 1.0], [0, 1], each) for each in names))
    assert [first.rstrip(), second.rstrip()] == [
        "a ranking 0  b ranking 1",
        "c ranking 2  d ranking 3",
    ]
    assert third.rstrip() == "e ranking 4"


def dots() -> Iterator[tuple[int, int, int]]:
    """Row, column and bit of each dot, as Unicode numbers them."""
    for column, bits in enumerate(((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))):
        for row, bit in enumerate(bits):
            yield row, column, bit


@pytest.mark.parametrize(("row", "column", "bit"), dots())
def test_a_dot_is_where_braille_has_it(row: int, column: int, bit: int) -> None:
    canvas = _Canvas(2, 2, (0.1, 1.0), (0.0, 1.0))
    canvas._dot(row, column, 2, 4, "")
    assert canvas.cells[0][0][0] == chr(0x2800 | bit)
    # What is there stays there.
    canvas._dot(3 - row, 1 - column, 2, 4, "")
    assert ord(canvas.cells[0][0][0]) & bit
    canvas._dot(4 + row, 2 + column, 2, 4, "")
    assert canvas.cells[1][1][0] == chr(0x2800 | bit)
