"""The picture of p-values: a bar a part, and the level that there would be without any effect."""

from __future__ import annotations

from typing import Any

import pytest

from xaikit.report import calibration


def test_each_part_has_its_bar_and_the_level_is_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(calibration, "save_as", lambda *given: drawn.append(given))
    counts = [1300, 100, 100, 500]
    calibration.draw_calibration(counts, "layer 3\x1b", "x.svg", dpi=70)
    ((figure, out, dpi),) = drawn
    assert (out, dpi) == ("x.svg", 70)
    (axes,) = figure.axes
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert middles == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert [bar.get_height() for bar in axes.patches] == counts
    (level,) = axes.lines
    assert set(level.get_ydata()) == {500}
    assert axes.get_title(loc="left") == "layer 3\\x1b: 2,000 edges with a test"
    assert axes.get_xlim() == (0, 1)
    (text,) = axes.get_legend().texts
    assert text.get_text() == "level without any effect"
