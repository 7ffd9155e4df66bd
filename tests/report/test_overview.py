"""The one picture of a run: each panel shows its own numbers, and names are text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
from report.made_parts import made_parts

from xaikit.report import overview
from xaikit.report.overview import cluster_colours, draw_overview, painted
from xaikit.report.page.parts import LayerParts

PICTURES = [np.full((8, 8, 3), 10 * at, np.uint8) for at in range(2)]


@pytest.fixture
def parts() -> LayerParts:
    found = made_parts()
    found.fit.grid = [2, 2]
    return found


def drawn(parts: LayerParts, live: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that would be saved."""
    figures: list[Any] = []
    monkeypatch.setattr(overview, "save_as", lambda figure, *_: figures.append(figure))
    assert parts.circuit is not None
    labels = parts.features.labels[[4, 7]].numpy()
    draw_overview(PICTURES, labels, parts.fit, parts.circuit, live, Path("out.png"))
    return figures[0]


def panel(figure: Any, title: str) -> Any:
    return next(axes for axes in figure.axes if axes.get_title().startswith(title))


def test_a_patch_is_tinted_in_its_cluster_s_colour_where_it_lies() -> None:
    colours = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = painted(np.zeros((6, 6, 3)), np.array([0, 1, 2, 2, 1, 0]), (2, 3), colours, 1.0)
    for row, line in enumerate("001122", start=0):
        assert found[0, row].tolist() == colours[int(line)].tolist()
        assert found[5, row].tolist() == colours[2 - int(line)].tolist()
    assert found[2, 0].tolist() == [1, 0, 0]
    assert found[3, 0].tolist() == [0, 0, 1]
    grey = painted(np.full((2, 2, 3), 255.0), np.array([0]), (1, 1), colours, 0.25)
    assert grey[0, 0].tolist() == [1.0, 0.75, 0.75]


def test_each_image_has_the_clusters_of_its_own_patches(
    parts: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, colours = drawn(parts, None, monkeypatch), cluster_colours(4)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 4
    for at, image in enumerate((4, 7)):
        assert np.array_equal(shown[at], PICTURES[at])
        patches = parts.features.labels[image].numpy()[1:]
        expected = painted(PICTURES[at], patches, (2, 2), colours)
        np.testing.assert_allclose(shown[2 + at], expected)


def test_edges_have_their_contrast_colour_and_whether_they_are_significant(
    parts: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts.circuit is not None
    first = parts.circuit.paths[0]
    known = [
        {"cluster_id": 1, "contrast": 0.5, "qvalue": 0.05, "src_name": "class token"},
        {"cluster_id": 2, "contrast": -0.25, "qvalue": 0.051},
        {"cluster_id": 3, "contrast": 0.125, "qvalue": 1.0, "testable": False},
        {"cluster_id": 0, "contrast": 0.1, "qvalue": None, "side": "against"},
    ]
    parts.circuit.paths = [
        replace(first, head=at, dst_name=f"place {at}", **{"src_name": "", **each})
        for at, each in enumerate(known)
    ]
    axes = panel(drawn(parts, None, monkeypatch), "first edges of the circuit")
    names = [label.get_text() for label in axes.get_yticklabels()]
    # The first edge is at the top, which is the last bar.
    assert names[::-1] == [
        "class token → head 0 → place 0",
        "cluster 2 → head 1 → place 1",
        "cluster 3 → head 2 → place 2",
        "cluster 0 → head 3 → place 3, against",
    ]
    assert [bar.get_width() for bar in axes.patches][::-1] == [0.5, -0.25, 0.125, 0.1]
    colours = [bar.get_facecolor()[:3] for bar in axes.patches][::-1]
    np.testing.assert_allclose(colours, cluster_colours(4)[[1, 2, 3, 0]])
    notes = {text.get_position(): text.get_text() for text in axes.texts}
    assert notes == {(0.0, 2): " n.s.", (0.125, 1): " not testable"}


def test_scores_are_those_of_the_held_out_images_where_there_are_some(
    parts: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.fit.heldout_r2 = {"r2_mean": 0.1, "r2_position": 0.2, "r2_position_cluster": 0.4}
    axes = panel(drawn(parts, None, monkeypatch), "R² of the logits, held out")
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.2, 0.4]
    parts.fit.heldout_r2 = {}
    axes = panel(drawn(parts, None, monkeypatch), "R² of the logits, in sample")
    assert [bar.get_height() for bar in axes.patches][2] == parts.fit.r2_position_cluster


def curve(ranking: str, at: float, mode: str = "remove", metric: str = "cosine") -> dict[str, Any]:
    named = {"ranking": ranking, "mode": mode, "metric": metric, "ablation": "mean"}
    return {**named, "shares": [0.1, 1.0], "fractions": [at, 1.0], "area_log": at}


def test_curves_are_of_removal_alone_and_the_band_is_theirs(
    parts: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    band = {"mean": [0.1, 0.2], "low": [0.04, 0.2], "high": [0.1, 0.2]}
    live: Any = Some(
        objective={"kind": "embedding"},
        curves=[curve("reach", 0.6), curve("reach", 0.9, "keep"), curve("reach", 0.3, metric="kl")],
        random=[curve("random", 0.3) | band, curve("random", 0.3, "keep") | band],
        full_of=lambda _record: 0.2,
        full_effect={"cosine": 0.2},
        ablation="mean",
    )
    axes = panel(drawn(parts, live, monkeypatch), "live model: effect where edges are removed")
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.6, 1.0]]
    (filled,) = axes.collections
    heights = filled.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.2), pytest.approx(1.0))


def test_a_model_s_name_is_text(parts: LayerParts, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parts.fit.provenance
    parts.fit.provenance = replace(p, origin=replace(p.origin, model="a\u202eb\x1b[31m"))
    title = drawn(parts, None, monkeypatch).get_suptitle()
    assert "FFN gates of layer 2 → attention of layer 3" in title
    assert "\u202e" not in title
    assert "\x1b" not in title
