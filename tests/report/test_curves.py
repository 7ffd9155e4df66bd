"""Curves as pictures and in a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from xaikit.report import curves
from xaikit.report.curves import as_drawn, plot_curves, ranking_order
from xaikit.report.terminal import terminal_chart

SHARES = [0.001, 0.01, 0.1, 1.0]


def curve(ranking: str, fractions: list[float], mode: str = "remove") -> dict[str, Any]:
    return {
        "ranking": ranking,
        "mode": mode,
        "metric": "cosine",
        "shares": SHARES,
        "fractions": fractions,
        "effects": [0.2 * value for value in fractions],
        "area_log": sum(fractions) / 4,
    }


BAND = {
    "ranking": "random",
    "mode": "remove",
    "metric": "cosine",
    "shares": SHARES,
    "mean": [0.0, 0.002, 0.02, 0.2],
    "fractions": [0.0, 0.01, 0.1, 1.0],
    "low": [0.0, 0.0, 0.01, 0.2],
    "high": [0.0, 0.01, 0.08, 0.2],
}
CURVES = [curve("energy", [0.1, 0.4, 0.7, 1.0]), curve("weight", [0.0, 0.0, 0.1, 1.0])]


def of(full: float) -> Any:
    return SimpleNamespace(full_of=lambda record: full)


def test_band_is_a_share_of_the_full_effect() -> None:
    drawn = as_drawn(BAND, of(0.2))
    assert drawn["low"] == pytest.approx([0, 0, 0.05, 1])
    assert drawn["high"] == pytest.approx([0, 0.05, 0.4, 1])
    dead = BAND | {"mean": [0.0] * 4, "fractions": [0.0] * 4, "low": [0.0] * 4, "high": [0.0] * 4}
    assert as_drawn(dead, of(0.0))["high"] == [0.0] * 4


def test_a_direction_is_drawn_in_numbers_by_the_full_effect_of_the_artefact() -> None:
    record = curve("reach", [0.0, 0.0, 0.0, 1.0]) | {"metric": "toward", "area_log": 0.5}
    drawn = as_drawn(record, of(-0.3))
    assert drawn["fractions"] == record["effects"]
    assert drawn["area_log"] == pytest.approx(-0.15)
    band = as_drawn(BAND | {"metric": "toward"}, of(-0.3))
    assert (band["fractions"], band["low"]) == (BAND["mean"], BAND["low"])


def test_rankings_are_ordered_by_removal_whatever_the_order_of_records() -> None:
    keep = [curve("weight", [1.0, 1.0, 1.0, 0.0], "keep")]
    assert ranking_order([*keep, *CURVES[::-1]]) == ["energy", "weight"]


def measured(records: list[Any], **given: Any) -> Any:
    """What a picture of curves reads of a measurement."""
    return SimpleNamespace(
        curves=records,
        random=[BAND],
        ablation="mean",
        heldout=True,
        full_of=lambda record: 0.2,
        **given,
    )


@pytest.mark.parametrize("modes", [["remove"], ["remove", "keep"]])
def test_plot_is_a_whole_png_that_grows_with_its_panels(tmp_path: Path, modes: list[str]) -> None:
    records = [entry | {"mode": mode} for mode in modes for entry in CURVES]
    found = measured(records, destination="token", num_images=8)
    path = plot_curves(found, tmp_path / "deep" / "curves.png", dpi=50)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 250 * len(modes)
    assert list(path.parent.iterdir()) == [path]


def test_the_legend_lies_beside_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(curves, "save_as", lambda figure, out, dpi: drawn.append(figure))
    found = measured(CURVES, destination="cluster", num_images=48)
    plot_curves(found, tmp_path / "curves.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    assert not title.overlaps(figure.legends[0].get_window_extent())


def printed(width: int = 60, encoding: str = "utf-8", **kwargs: Any) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, color_system=None)
    console.print(terminal_chart(CURVES, as_drawn(BAND, of(0.2)), **kwargs))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding).splitlines()


def test_chart_shows_the_extreme_points_and_names_curves_without_colour() -> None:
    title, *plot = printed(height=10)
    rows, ticks, legend = plot[:10], plot[10], plot[11]
    assert "full effect" in title
    assert rows[0].startswith(" 100% │")
    assert rows[0].endswith("a")
    assert rows[9].startswith("   0% │b")
    assert rows[8][7] == "a"
    assert ticks.split() == ["0.1%", "1%", "10%", "100%"]
    assert legend.split() == ["a", "energy", "b", "weight", "░", "random"]
    assert any("░" in row for row in rows)
    assert any("\u2801" <= c <= "\u28ff" for row in rows for c in row)


@pytest.mark.parametrize("width", [24, 40, 200])
def test_chart_fits_the_terminal(width: int) -> None:
    lines = printed(width)
    assert max(map(len, lines)) <= min(width, 76)
    assert sum("│" in line for line in lines) == 12


def test_chart_is_ascii_where_the_terminal_is() -> None:
    lines = printed(encoding="ascii")
    assert any("." in line for line in lines)
    assert any(":" in line for line in lines)
    assert lines[1].startswith(" 100% |")


def test_effects_beyond_the_full_effect_stay_on_the_chart() -> None:
    wild = [curve("energy", [-0.2, 0.4, 1.5, 1.0])]
    lines = terminal_chart(wild, {}, height=10).lines(50)
    assert lines[1].plain.startswith(" 150% │")
    assert "a" in lines[1].plain
    assert lines[10].plain.startswith(" -20% │a")


def drawn_curves(monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
    """The figure of some curves."""
    kept: list[Any] = []
    monkeypatch.setattr(curves, "save_as", lambda figure, *_: kept.append(figure))
    known = {"ablation": "mean", "destination": "token", "num_images": 1234, "heldout": True}
    known |= {"full_of": lambda record: 0.2, "random": []}
    found: Any = SimpleNamespace(**{**known, **given})
    plot_curves(found, "x.png")
    return kept[0]


def test_each_panel_has_the_curves_of_its_metric_and_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = [curve("energy", [0.9, 0.6, 0.2, 0.0], "keep")]
    other = [each | {"metric": "kl", "fractions": [0.0, 0.0, 0.5, 1.0]} for each in CURVES[:1]]
    figure = drawn_curves(monkeypatch, curves=[*CURVES, *keep, *other], random=[BAND])
    panels = [axes for axes in figure.axes if axes.lines]
    shown = {
        (axes.get_ylabel().split("\n")[0], axes.get_title()): [
            line.get_ydata().tolist() for line in axes.lines
        ]
        for axes in panels
    }
    cosine, removed = "1 − cos to the clean embedding", "edges removed"
    assert shown == {
        (cosine, removed): [BAND["fractions"], *(each["fractions"] for each in CURVES)],
        (cosine, "only these edges kept"): [keep[0]["fractions"]],
        ("KL of the class distribution", removed): [other[0]["fractions"]],
    }
    assert all(axes.get_ylabel().endswith("share of full effect") for axes in panels)
    assert {axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()} == {
        "share of logit entries edited",
        "share of logit entries left alone",
    }
    assert figure.get_suptitle() == "mean ablation, destination token, 1,234 held-out images"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["energy", "weight", "random, 95%"]


def test_curves_of_a_direction_are_falls_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    directed = [each | {"metric": "toward"} for each in CURVES]
    figure = drawn_curves(monkeypatch, curves=directed, heldout=False)
    (axes,) = (axes for axes in figure.axes if axes.lines)
    assert axes.lines[0].get_ydata().tolist() == CURVES[0]["effects"]
    assert axes.get_ylabel() == "fall of the objective"
    assert figure.get_suptitle().endswith("1,234 images, none held out")


def test_a_direction_that_nothing_moves_has_areas_of_zero() -> None:
    still = curve("energy", [0.0] * 4) | {"metric": "toward", "area_log": 0.5}
    assert as_drawn(still, of(0.0))["area_log"] == 0.0


@pytest.mark.parametrize(("share", "text"), [(0.001, "0.1%"), (0.1, "10%"), (1.0, "100%")])
def test_a_tick_is_a_percentage_without_idle_zeros(share: float, text: str) -> None:
    assert curves.percent(share) == text
