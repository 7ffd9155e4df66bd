"""The picture of one image explained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.records import Origin, Provenance
from xaikit.report import explanation
from xaikit.report.explanation import _marked, draw_explanation, shown_layers


def curve(ranking: str, mode: str) -> dict:
    named = {"ranking": ranking, "mode": mode, "metric": "cosine"}
    return {**named, "shares": [0.1, 1.0], "fractions": [0.4, 1.0], "effects": [0.2, 0.5]}


@pytest.fixture
def found() -> Explanation:
    origin = Origin(model="m", pretrained="", weights_fingerprint="", images_fingerprint="")
    edge = {"head": 1, "dst_token": None, "weight": 0.1, "support": 3, "next_layer": 2}
    return Explanation(
        provenance=Provenance(origin=origin, layer=0, next_layer=1),
        image="\x1b[31m$x^2$.png",
        rank="reach",
        grid=[2, 2],
        prefix_kinds=["class token"],
        layers=[[0, 1], [1, 2]],
        labels=[[2, 0, 0, 1, 1], [2, 0, 1, 0, 1]],
        edges=[
            Edge(cluster_id=0, dst_cluster=1, layer=1, **edge),
            Edge(cluster_id=2, dst_cluster=0, layer=1, **edge),
        ],
        common_edges=[],
        effects=[],
        curves=[curve(r, m) for m in ("remove", "keep") for r in ("own", "common")],
        random=[],
        full_effect={"cosine": 0.5},
        tested=["whole image, mirrored"],
    )


def test_an_edges_queries_and_keys_are_tinted_and_nothing_else(found: Explanation) -> None:
    picture = np.full((4, 4, 3), 100, dtype=np.uint8)
    drawn = _marked(found, found.edges[0], picture)
    plain = 100 / 255
    assert np.allclose(_marked(found, found.edges[1], picture)[:2, 2:], plain)
    queries, keys = drawn[0, 0], drawn[0, 3]
    assert not np.allclose(queries, keys)
    assert not np.allclose(queries, plain)
    assert np.allclose(drawn[2:, :2], queries)
    assert shown_layers(found) == [0, 1]


def test_the_picture_is_drawn_whatever_the_name(found: Explanation, tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    out = draw_explanation(found, picture, tmp_path / "explain.png", dpi=40)
    with Image.open(out) as drawn:
        assert drawn.size == (600, 288)


def test_words_below_the_first_edge_make_no_room_between_panels(
    found, tmp_path, monkeypatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(explanation, "save_as", lambda figure, *rest: drawn.append(figure))
    draw_explanation(found, np.zeros((8, 8, 3), dtype=np.uint8), tmp_path / "x.png")
    (words,) = [text for text in drawn[0].findobj(Text) if "orange" in text.get_text()]
    assert words.axes is None


def test_an_edge_to_one_token_is_marked_at_that_token_of_its_own_layer(found: Explanation) -> None:
    picture = np.full((4, 4, 3), 100, dtype=np.uint8)
    edge = {"head": 1, "dst_token": 4, "weight": 0.1, "support": 3, "layer": 0}
    drawn = _marked(found, Edge(cluster_id=1, dst_cluster=None, **edge), picture)
    # Of layer 0 the two lower patches are cluster 1; the last token is both ends.
    assert np.allclose(drawn[:2], 100 / 255)
    grey = 100 / 255
    assert not np.allclose(drawn[3, 0], grey)
    assert not np.allclose(drawn[3, 0], drawn[3, 3])
    query, key = (np.array(to_rgb(colour)) for colour in ("#E69F00", "#0072B2"))
    # Orange are the queries.
    assert np.abs(drawn[3, 0] - query).sum() < np.abs(drawn[3, 0] - key).sum()


def test_the_layers_that_are_drawn_have_most_edges_and_come_in_order(found: Explanation) -> None:
    found.layers = [[at, at + 1] for at in range(6)]
    edge = found.edges[0]
    found.edges = [replace(edge, layer=at) for at in (5, 5, 4, 3, 1)]
    assert shown_layers(found) == [1, 3, 4, 5]


def test_what_is_drawn_is_named_as_text_and_of_its_own_layer_mode_and_metric(
    found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(explanation, "save_as", lambda figure, *_: kept.append(figure))
    found.edges[0] = replace(found.edges[0], dst_name="a\x1b", side="for")
    found.classes = [{"name": "cat\x1b", "probability": 0.25}]
    other = [each | {"metric": "kl", "fractions": [0.0, 0.5]} for each in found.curves]
    low = {**curve("random", "remove"), "low": [0.05, 0.5], "high": [0.1, 0.5]}
    found.curves[0]["fractions"] = [0.7, 1.0]
    found.curves, found.random = [*found.curves, *other], [low]
    draw_explanation(found, np.zeros((8, 8, 3), dtype=np.uint8), tmp_path / "x.png")
    (figure,) = kept
    said = {text.get_text() for text in figure.findobj(Text)}
    assert "\\x1b[31m$x^2$.png: edges that matter for this image (reach)" in said
    assert {"cat\\x1b: 25%", "clusters of layer 0", "clusters of layer 1"} <= said
    assert "layer 2, head 1, for\ncluster 0 → a\\x1b" in said
    panels = [axes for axes in figure.findobj(Axes) if axes.lines]
    assert [axes.get_title().split(",")[0] for axes in panels] == ["removed", "alone kept"]
    first, second = panels[0].lines
    assert (first.get_label(), second.get_label()) == (
        "this image's edges",
        "the run's common edges",
    )
    assert first.get_ydata().tolist() == [0.7, 1.0]
    assert len(panels[1].lines) == 2
    (band,) = panels[0].collections
    # In shares of the full effect, which is .5.
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(1.0)
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(0.1)
    assert not panels[1].collections


def test_clusters_are_painted_on_the_patches_that_hold_them(
    found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = explanation.painted

    def painted(picture: Any, labels: Any, *rest: Any) -> Any:
        seen.append(np.asarray(labels).tolist())
        return real(picture, labels, *rest)

    monkeypatch.setattr(explanation, "painted", painted)
    monkeypatch.setattr(explanation, "save_as", lambda *_: None)
    draw_explanation(found, np.zeros((8, 8, 3), dtype=np.uint8), tmp_path / "x.png")
    assert seen[:2] == [[0, 0, 1, 1], [0, 1, 0, 1]]
