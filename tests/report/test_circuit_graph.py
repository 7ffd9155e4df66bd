"""The graph and the p-values of a run, for print."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xaikit.report import calibration, circuit_graph
from xaikit.report.calibration import draw_calibration
from xaikit.report.circuit_graph import Link, Node, draw_circuit_graph
from xaikit.report.page.drawn_graph import EDGES, DrawnGraph
from xaikit.report.page.edges import edge_rows
from xaikit.report.page.parts import read_run
from xaikit.report.page.pictures import Pictures


def kept(monkeypatch: pytest.MonkeyPatch, module: object) -> list:
    """The figures that a module saves from here on."""
    found: list = []
    monkeypatch.setattr(module, "save_as", lambda figure, *_: found.append(figure))
    return found


@pytest.mark.parametrize("several", [False, True])
def test_lines_are_the_first_edges_of_the_page(
    run_folder: Path, layers_folder: Path, several: bool
) -> None:
    run = read_run(layers_folder if several else run_folder)
    rows = edge_rows(run)[:EDGES]
    assert len(rows) == EDGES
    graph = DrawnGraph.of(run, Pictures(run.layers[0]))
    heads = Counter(row["head"] for row in rows)
    assert heads == Counter(int(h) for link in graph.links for h in link.heads.split(", "))
    less = sum(len(link.heads.split(", ")) for link in graph.links if link.against)
    assert less == sum(row["contrast"] < 0 for row in rows)
    assert max(link.strength for link in graph.links) == 1.0
    ends = {key for link in graph.links for key in (link.query, link.key)}
    assert set(graph.nodes) == ends
    columns = {node.column for node in graph.nodes.values()}
    assert columns == set(range(len(graph.columns)))
    clusters = {f"cluster {row['cluster']}" for row in rows}
    assert clusters <= {node.label for node in graph.nodes.values()}
    assert any(node.picture is not None for node in graph.nodes.values())
    if several:
        assert graph.columns == [f"layer {at}" for at in sorted({row["layer"] for row in rows})]
        assert set(graph.flows) <= {(a, b) for a in ends for b in ends}
    else:
        assert graph.columns == ["queries: clusters of layer 3", "keys: attention of layer 4"]
        sizes = run.layers[0].features.cluster_sizes.tolist()
        shares = {f"{size / sum(sizes):.0%} of the tokens" for size in sizes}
        assert {node.note for node in graph.nodes.values() if "%" in node.note} <= shares


def test_sides_of_an_objective_are_the_two_colours(layers_folder: Path) -> None:
    run = read_run(layers_folder)
    assert run.circuit is not None
    paths = [
        replace(edge, effect=0.1, side="against" if at % 3 else "for")
        for at, edge in enumerate(run.circuit.paths)
    ]
    run.circuit = replace(run.circuit, paths=paths)
    graph = DrawnGraph.of(run, Pictures(run.layers[0]))
    assert graph.words["against"] == "pushes against it"
    said = sum(len(link.heads.split(", ")) for link in graph.links if link.against)
    assert said == sum(row["side"] == "against" for row in edge_rows(run)[:EDGES])


def test_the_drawing_has_every_name_and_head(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures = kept(monkeypatch, circuit_graph)
    picture = np.zeros((4, 4, 3), np.uint8)
    nodes = {"a": Node(0, "$x^2$ \x1b", "class token", picture), "b": Node(1, "other")}
    links = [Link("a", "b", "0, 3", 1.0), Link("a", "b", "2", 0.1, against=True)]
    links.append(Link("b", "b", "1", 0.5))
    words = {"title": "a title", "for": "more", "against": "less"}
    flows = {("a", "b"): 0.5}
    draw_circuit_graph(nodes, links, ["left", "right"], flows, words, tmp_path / "graph.svg")
    said = [text.get_text() for axes in figures[0].axes for text in axes.texts]
    assert {"$x^2$ \\x1b", "class token", "other", "0, 3", "2", "1", "a title", "left"} <= set(said)
    # Three links, a flow and two boxes.
    assert len(figures[0].axes[0].patches) == 6
    # Those of the same two nodes are not on one another.
    first, second = (figures[0].axes[0].patches[at].get_path().vertices for at in (1, 2))
    assert not np.allclose(first, second)
    spots = [text.get_position() for text in figures[0].axes[0].texts]
    assert len(set(spots)) == len(spots)


@pytest.mark.parametrize("queries", ["a", "b"])
def test_an_arc_leads_from_the_upper_part_of_the_query_to_the_lower_part_of_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queries: str
) -> None:
    figures = kept(monkeypatch, circuit_graph)
    nodes = {"a": Node(0, "a"), "b": Node(0, "b")}
    keys = "ab".replace(queries, "")
    words = {"title": "", "for": "", "against": ""}
    links = [Link(queries, keys, "0", 1.0)]
    draw_circuit_graph(nodes, links, ["one"], {}, words, tmp_path / "graph.svg")
    arc, *boxes = figures[0].axes[0].patches
    above = dict(zip(nodes, (box.get_y() for box in boxes), strict=True))
    (_, start), *_, (_, stop) = arc.get_path().vertices
    half = boxes[0].get_height() / 2
    assert above[queries] < start < above[queries] + half
    assert above[keys] + half < stop < above[keys] + 2 * half


def test_bars_are_the_counts_and_the_line_their_mean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures = kept(monkeypatch, calibration)
    counts = [30, 5, 3, 2]
    draw_calibration(counts, "a title", tmp_path / "p.png")
    (axes,) = figures[0].axes
    assert [bar.get_height() for bar in axes.patches] == counts
    assert [bar.get_x() + bar.get_width() / 2 for bar in axes.patches] == pytest.approx(
        [0.125, 0.375, 0.625, 0.875]
    )
    assert axes.lines[0].get_ydata()[0] == 10
    assert "a title: 40 edges" in axes.get_title(loc="left")
