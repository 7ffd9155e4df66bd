"""The picture of one image explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
