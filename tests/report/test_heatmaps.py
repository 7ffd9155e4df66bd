"""Heatmaps: which files there are, and what is on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from xaikit.errors import UsageError
from xaikit.report import heatmaps
from xaikit.report.heatmaps import colour_limit, draw_heatmaps

COUNTS = np.array([40, 0, 2300, 7])


def planted(heads: int = 2, tokens: int = 17) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, heads, tokens))


def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures drawn from here on."""
    drawn, original = [], heatmaps._draw

    def draw(*args: object) -> object:
        drawn.append(original(*args))
        return drawn[-1]

    monkeypatch.setattr(heatmaps, "_draw", draw)
    return drawn


def draw(out_dir: Path, values: np.ndarray, **options: object) -> list[Path]:
    settings = {
        "prefix_kinds": ["class token"],
        "grid": (4, 4),
        "quantity": "contrast",
        "title": "a title",
    }
    return draw_heatmaps(values, COUNTS, out_dir=out_dir, **(settings | options))


def test_one_whole_png_a_head_and_nothing_else(tmp_path: Path) -> None:
    found = draw(tmp_path / "maps", planted(heads=3), dpi=40)
    assert [path.name for path in found] == ["head_0.png", "head_1.png", "head_2.png"]
    assert sorted((tmp_path / "maps").iterdir()) == found
    for path in found:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100


def test_rows_are_clusters_by_size_and_empty_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    values = planted()
    draw(tmp_path, values, dpi=40)
    prefix, patches = drawn[1].axes[:2]
    labels = [label.get_text() for label in prefix.get_yticklabels()]
    assert labels == ["2 · n=2,300", "0 · n=40", "3 · n=7"]
    np.testing.assert_array_equal(patches.images[0].get_array(), values[[2, 0, 3], 1, 1:])
    words = " ".join(text.get_text() for text in drawn[1].texts)
    assert "a title, head 1" in words
    assert "1 empty, not shown: 1" in words
    assert "logit" in words


def test_prefix_columns_are_apart_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    values = planted(1, tokens=20)
    kinds = ["register 1", "class token", "distillation token", "register 2"]
    draw(tmp_path, values, prefix_kinds=kinds, dpi=40)
    prefix = drawn[0].axes[0]
    assert [t.get_text() for t in prefix.get_xticklabels()] == ["R1", "CLS", "DIST", "R2"]
    np.testing.assert_array_equal(prefix.images[0].get_array(), values[[2, 0, 3], 0, :4])


def test_colours_are_centred_and_a_loud_prefix_does_not_set_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = planted(1)
    values[:, :, 0] = 500
    assert colour_limit(values[:, 0], 1) < 5
    drawn = figures(monkeypatch)
    draw(tmp_path, values, dpi=40)
    images = [axes.images[0] for axes in drawn[0].axes if axes.images]
    assert len({image.get_clim() for image in images}) == 1
    low, high = images[0].get_clim()
    assert low == -high
    assert colour_limit(np.zeros((3, 5)), 1) == 1.0


def test_maps_lay_patches_out_as_the_image_and_edges_are_outlined_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    values = planted(1)
    edges = [(2, 0, 6), (0, 0, 0), (1, 0, 3), (2, 1, 5)]
    draw(tmp_path, values, edges=edges, dpi=40)
    prefix, _, maps = drawn[0].axes[:3]
    picture = maps.images[0].get_array().data
    top, left = (int(axis[0]) for axis in np.where(picture == values[2, 0, 1]))
    np.testing.assert_array_equal(
        picture[top : top + 4, left : left + 4], values[2, 0, 1:].reshape(4, 4)
    )
    outlines = [len(axes.collections[0].get_paths()) for axes in (prefix, maps)]
    assert outlines == [1, 1]
    corner = maps.collections[0].get_paths()[0].get_extents().min
    np.testing.assert_array_equal(corner, [left + 1 - 0.5, top + 1 - 0.5])
    assert "2 edges of the circuit" in " ".join(text.get_text() for text in drawn[0].texts)


def test_cluster_destinations_follow_the_order_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    values = planted(1, tokens=4)
    draw(
        tmp_path,
        values,
        prefix_kinds=[],
        grid=None,
        destination="cluster",
        kinds=["class token", "register"],
        edges=[(0, 0, 3)],
        dpi=40,
    )
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["CLS", "0", "REG"]
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert rows == ["CLS · n=2,300", "0 · n=40", "REG · n=7"]
    np.testing.assert_array_equal(
        axes.images[0].get_array(), values[:, 0][np.ix_([2, 0, 3], [2, 0, 3])]
    )
    assert axes.collections[0].get_paths()[0].get_extents().min.tolist() == [1.5, 0.5]


def test_no_cluster_at_all_still_draws(tmp_path: Path) -> None:
    found = draw_heatmaps(
        planted(1),
        np.zeros(4, int),
        prefix_kinds=["class token"],
        grid=(4, 4),
        quantity="weight",
        title="",
        out_dir=tmp_path,
        dpi=40,
    )
    assert found[0].is_file()


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    with pytest.raises(UsageError, match="maps"):
        draw(tmp_path / "maps", planted())


def luminance(colour: object) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    from matplotlib.colors import to_rgb

    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_outlines_stand_out_from_every_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    draw(tmp_path, planted(1), edges=[(2, 0, 6)], dpi=40)
    lines = drawn[0].axes[1].collections[0]
    (border,) = lines.get_path_effects()
    pair = [lines.get_edgecolor()[0][:3], border._gc["foreground"]]
    assert border._gc["linewidth"] > lines.get_linewidth()[0] + 1
    for value in np.linspace(0, 1, 21):
        cell = luminance(heatmaps._colours()(value)[:3])
        shades = [sorted((cell, luminance(colour))) for colour in pair]
        assert max((light + 0.05) / (dark + 0.05) for dark, light in shades) >= 3


def test_the_colour_scale_leaves_out_one_value_in_two_hundred() -> None:
    values = np.zeros((4, 101))
    values[:, 1:] = np.arange(1.0, 401.0).reshape(4, 100) * -1
    assert colour_limit(values, 1) == pytest.approx(1 + 0.995 * 399)


@pytest.mark.parametrize(
    ("extremes", "arrow"),
    [((), "neither"), ((-900.0,), "min"), ((900.0,), "max"), ((-900.0, 900.0), "both")],
)
def test_an_arrow_says_at_which_end_values_go_beyond_the_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extremes: tuple, arrow: str
) -> None:
    drawn = figures(monkeypatch)
    values = np.ones((4, 1, 401))
    values[:, :, ::2] = -1
    for at, value in enumerate(extremes):
        values[2, 0, at + 1] = value
    draw(tmp_path, values, grid=None, dpi=40)
    bar = next(axes._colorbar for axes in drawn[0].axes if hasattr(axes, "_colorbar"))
    assert bar.extend == arrow


def test_what_a_picture_shows_is_the_fit_s_contrast_and_its_names_are_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list = []
    monkeypatch.setattr(heatmaps, "draw_heatmaps", lambda *args, **more: seen.append((args, more)))
    table = torch.randn(4, 2, 17)
    made = SimpleNamespace(
        contrast=table,
        counts=torch.tensor([1, 2, 3, 4]),
        prefix_kinds=["register 1"],
        kinds=["register"],
        grid=[4, 4],
        destination="token",
    )
    edge = SimpleNamespace(key=(1, 0, 5))
    heatmaps.draw_contrasts(made, [edge], tmp_path, "title", dpi=50)
    ((values, counts), more) = seen[0]
    assert np.array_equal(values, table.numpy())
    assert counts.tolist() == [1, 2, 3, 4]
    assert (more["edges"], more["grid"], more["quantity"]) == ([(1, 0, 5)], (4, 4), "contrast")
    assert (more["prefix_kinds"], more["kinds"]) == (["register 1"], ["register"])
    panel = heatmaps._panel(COUNTS, "0123", [], (4, 4), "a\x1b unit", "a\x1b title", False)
    assert (panel.unit, panel.title) == ("a\\x1b unit", "a\\x1b title")


def test_less_is_drawn_in_one_colour_and_more_in_the_other() -> None:
    low, high = (heatmaps._colours()(at)[:3] for at in (0.0, 1.0))
    assert low == pytest.approx(to_rgb(heatmaps.LESS))
    assert high == pytest.approx(to_rgb(heatmaps.MORE))


def test_rows_of_a_tall_grid_are_marked_where_they_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = figures(monkeypatch)
    draw(tmp_path, planted(1, tokens=13), grid=(4, 3), dpi=40)
    axes = drawn[0].axes[1]
    assert [round(float(at), 3) for at in axes.get_xticks()] == [-0.5, 2.5, 5.5, 8.5]
    values = [text.get_text() for text in drawn[0].axes[0].texts]
    assert values == [f"{value:+.1f}" for value in planted(1, tokens=13)[[2, 0, 3], 0, 0]]
