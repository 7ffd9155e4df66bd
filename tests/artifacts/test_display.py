"""Artefacts in a notebook: a few lines, escaped, comparable, and tables of their records."""

from __future__ import annotations

import builtins
from dataclasses import replace

import pytest
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.graph import Graph
from xaikit.artifacts.results import Intervention
from xaikit.errors import UsageError, XaikitError
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal


@pytest.fixture(scope="module")
def parts():
    generator = torch.Generator().manual_seed(0)
    trace = make_trace(torch.randn(12, 2, 5, 5, generator=generator))
    labels = torch.randint(0, 3, (12, 5), generator=generator)
    features = make_features(trace, labels, 3, heldout=[0, 1, 2, 3])
    fitted = fit(trace, features, num_permutations=9)
    chosen = circuit(fitted, top_k=4)
    return {
        "Trace": trace,
        "Features": features,
        "Fit": fitted,
        "Circuit": chosen,
        "Causal": causal(features, fitted, num_permutations=9),
        "TargetCausal": target_causal(trace, features, fitted, chosen, num_permutations=9),
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Trace", "12 images × 5 tokens, 2 heads, 12 gates a token"),
        ("Features", "3 clusters of 12 images × 5 tokens, 4 held out"),
        ("Fit", "30 edges (3 clusters × 2 heads × 5 tokens)"),
        ("Circuit", "4 edges to tokens by weight"),
        ("Causal", "effects of 3 clusters, 9 permutations"),
        ("TargetCausal", "effects of 4 edges, 9 permutations"),
    ],
)
def test_a_few_lines_say_the_sizes_and_what_it_was_made_of(parts, kind, words):
    lines = repr(parts[kind]).splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[0].startswith(f"{kind}: {words}")
    assert "made-up (random), gates of layer 2 → attention of layer 3" in lines[1]
    assert all(len(line) < 600 for line in lines)


def test_a_circuit_of_guided_clusters_without_a_test_says_so(parts):
    found = replace(parts["Circuit"], significant=None)
    assert repr(found).startswith("Circuit: 4 edges to tokens by weight, none tested")


def test_html_shows_records_and_escapes_every_text(parts):
    found = parts["Circuit"]
    assert found._repr_html_().count("<tr>") == 5
    sly = replace(
        found,
        provenance=replace(
            found.provenance,
            origin=replace(found.provenance.origin, model="<script>alert(1)</script>"),
        ),
        paths=[replace(found.paths[0], dst_name="<img src=x>")],
    )
    page = sly._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_equal_content_is_equal_and_other_content_is_not(parts, tmp_path):
    features, fitted = parts["Features"], parts["Fit"]
    assert features == features
    features.save(tmp_path / "features.safetensors")
    again = type(features).load(tmp_path / "features.safetensors")
    assert again == features
    other = make_features(parts["Trace"], 2 - features.labels, 3)
    assert other != features
    assert features != fitted
    assert replace(parts["Circuit"], top_k=9) != parts["Circuit"]
    assert replace(fitted, r2=0.5) != fitted


def test_records_become_data_frames(parts):
    edges = parts["Circuit"].to_pandas()
    assert list(edges.columns[:4]) == ["layer", "next_layer", "cluster_id", "head"]
    assert len(edges) == 4
    every = parts["Fit"].to_dataframe()
    assert len(every) == 30
    first = parts["Circuit"].paths[0]
    row = every[
        (every.cluster_id == first.cluster_id)
        & (every["head"] == first.head)
        & (every.dst_token == first.dst_token)
    ].iloc[0]
    assert row.weight == pytest.approx(first.weight)
    assert row.qvalue == pytest.approx(first.qvalue)
    assert row.support == first.support
    assert parts["Causal"].to_pandas().ablation_effect.is_monotonic_decreasing
    assert parts["Features"].to_pandas()["size"].sum() == 60
    with pytest.raises(UsageError, match="expected one of circuit"):
        parts["Circuit"].to_pandas("curves")
    with pytest.raises(UsageError, match="no records"):
        parts["Trace"].to_pandas()


def test_curves_become_one_row_a_point(parts):
    curve = {
        "ranking": "reach",
        "mode": "remove",
        "shares": [0.1, 1.0],
        "effects": [0.2, 0.4],
        "fractions": [0.5, 1.0],
        "area_linear": 0.7,
    }
    found = Intervention(
        provenance=parts["Fit"].provenance,
        full_effect={"cosine": 0.4},
        curves=[curve, {**curve, "ranking": "weight"}],
        random=[],
        effects=[],
    )
    points = found.to_pandas("curves")
    assert points.share.tolist() == [0.1, 1.0, 0.1, 1.0]
    assert points.effect.tolist() == [0.2, 0.4, 0.2, 0.4]
    assert points.ranking.tolist() == ["reach", "reach", "weight", "weight"]
    assert set(points.area_linear) == {0.7}


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("pandas", lambda parts: parts["Circuit"].to_pandas(), "xaikit[pandas]"),
        ("networkx", lambda parts: Graph().to_networkx(), "xaikit[networkx]"),
    ],
)
def test_a_missing_extra_is_named(parts, monkeypatch, module, call, extra):
    real = builtins.__import__

    def without(name, *rest):
        if name == module:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(XaikitError) as caught:
        call(parts)
    assert extra in str(caught.value)


def test_a_graph_prints_its_size_and_becomes_networkx():
    graph = Graph(
        directed=True,
        multigraph=True,
        graph={"model": "<m>", "layers": [1, 2]},
        nodes=[{"id": "1.0"}, {"id": "2.0"}],
        edges=[{"source": "1.0", "target": "2.0", "key": "flow"}],
    )
    assert repr(graph) == "Graph: 2 clusters, 1 links, layers 1, 2 of <m>"
    assert "&lt;m&gt;" in graph._repr_html_()
    assert list(graph.to_networkx().edges(keys=True)) == [("1.0", "2.0", "flow")]
