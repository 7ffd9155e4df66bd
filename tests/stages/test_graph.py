"""The graph across layers, as networkx reads it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import networkx
import orjson
import pytest
import torch

from tests.conftest import ORIGIN, make_features, make_trace
from xaikit.artifacts.edges import Edge
from xaikit.artifacts.graph import Graph
from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import Circuit, EdgeEffect, Intervention
from xaikit.artifacts.run_record import run_folders
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.record import write_run
from xaikit.run.run_all import run_all
from xaikit.run.subject import Subject
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.graph import (
    GraphLayer,
    GraphOptions,
    graph,
    graph_of_folder,
    of_layer,
)
from xaikit.statistics.agreement import joint_counts
from xaikit.towers import load_tower

IMAGES, TOKENS = 24, 6


def fitted(layer: int, labels: torch.Tensor, destination: str = "cluster") -> tuple[Features, Fit]:
    generator = torch.Generator().manual_seed(layer)
    trace = make_trace(torch.randn(IMAGES, 2, TOKENS, TOKENS, generator=generator))
    trace.info.provenance = replace(trace.info.provenance, layer=layer, next_layer=layer + 1)
    features = make_features(trace, labels, 4)
    given = {"num_permutations": 5, "controls": False}
    return features, fit(trace, features, destination=destination, **given)


def make_layer(layer: int, labels: torch.Tensor, destination: str = "cluster") -> GraphLayer:
    features, found = fitted(layer, labels, destination)
    return GraphLayer(features=features, circuit=circuit(found, top_k=7))


@pytest.fixture
def layers(rng) -> list[GraphLayer]:
    """Clusters 0 and 1 below split evenly over 0 and 2 above; cluster 3 is empty."""
    below = torch.from_numpy(rng.integers(0, 3, (IMAGES, TOKENS)))
    above = torch.where(below == 2, 1, torch.arange(TOKENS).expand(IMAGES, -1) % 2 * 2)
    above[0, :3] = 3
    return [make_layer(2, below), make_layer(5, above)]


def live_effect(edge: Edge, value: float) -> tuple[EdgeEffect, Intervention]:
    """What the live model does without an edge of layer 2, and the artefact that says so."""
    effect = EdgeEffect(
        cluster_id=edge.cluster_id,
        head=edge.head,
        dst_token=None,
        dst_cluster=edge.dst_cluster,
        support=1,
        edge_effect=0.1,
        edge_pvalue=1.0,
        alignment_gain=None,
        alignment_pvalue=None,
        live_effect=value,
        layer=2,
    )
    found = Intervention(
        provenance=Provenance(origin=ORIGIN, layer=2, next_layer=3),
        full_effect={"cosine": 0.5},
        curves=[],
        random=[],
        effects=[effect],
        clusters=[],
        agreement={},
    )
    return effect, found


def test_an_edge_that_cannot_be_tested_says_so_with_its_live_effect_beside_it(layers):
    first, second = layers[0].circuit.paths[:2]
    layers[0].circuit.paths[0] = replace(first, testable=False)
    above = layers[1].circuit.paths
    same = {"cluster_id": first.cluster_id, "head": first.head, "dst_cluster": first.dst_cluster}
    above[0] = replace(above[0], **same)
    effect, found = live_effect(first, 0.25)
    data = graph([replace(each, intervention=found) for each in layers])
    heads = [edge for edge in data["edges"] if edge["kind"] == "head"]
    assert (heads[0]["testable"], heads[0]["live_effect"]) == (False, 0.25)
    assert (heads[1]["testable"], heads[1]["live_effect"]) == (second.testable, None)
    # Of a single layer, effects need not name it.
    layers[0] = replace(
        layers[0], intervention=replace(found, effects=[replace(effect, layer=None)])
    )
    assert layers[0].live_effect(first) == 0.25
    # An effect of layer 2 is of no edge of layer 5.
    assert all(e["live_effect"] is None for e in heads if e["attention_layer"] == 6)


def test_networkx_reads_nodes_heads_and_flows(layers, tmp_path):
    graph(layers, out=tmp_path / "graph.json")
    data = orjson.loads((tmp_path / "graph.json").read_bytes())
    found = networkx.node_link_graph(data, edges="edges")
    assert found.is_directed()
    assert found.is_multigraph()
    assert set(found) == {"2.0", "2.1", "2.2", "5.0", "5.1", "5.2", "5.3"}
    assert found.nodes["2.1"]["size"] == int(layers[0].features.cluster_sizes[1])
    assert {found.nodes[name]["layer"] for name in found} == {2, 5}

    for layer in layers:
        for edge in layer.circuit.paths:
            ends = (f"{layer.features.layer}.{end}" for end in (edge.cluster_id, edge.dst_cluster))
            link = found.edges[(*ends, f"head {layer.features.next_layer}.{edge.head}")]
            assert link["kind"] == "head"
            assert link["weight"] == pytest.approx(edge.weight)
            assert link["qvalue"] == pytest.approx(edge.qvalue)
            assert link["support"] == edge.support

    below, above = (layer.features.labels for layer in layers)
    flows = [(a, b, d) for a, b, d in found.edges(data=True) if d["kind"] == "flow"]
    for start, end, link in flows:
        rows = below == int(start.split(".")[1])
        share = (above[rows] == int(end.split(".")[1])).double().mean()
        assert link["share"] == pytest.approx(float(share))
        assert link["share"] >= 0.1
    assert ("2.2", "5.1") in {(a, b) for a, b, _ in flows}
    assert ("2.0", "5.1") not in {(a, b) for a, b, _ in flows}
    assert not any(b == "5.3" for _, b, _ in flows)


def test_every_token_flows_somewhere_where_no_share_is_too_small(layers):
    # From each layer to the one above it, in whatever order they are given.
    data = graph(layers[::-1], min_share=0.0)
    assert data["graph"]["layers"] == [2, 5]
    assert data["graph"]["min_share"] == 0.0
    total: dict[str, float] = {}
    for link in data["edges"]:
        if link["kind"] == "flow":
            total[link["source"]] = total.get(link["source"], 0.0) + link["share"]
    assert total == {name: pytest.approx(1.0) for name in ("2.0", "2.1", "2.2")}


def test_a_link_says_what_its_edge_is_and_a_node_what_its_cluster_is(layers):
    first = replace(layers[0].circuit.paths[0], effect=-0.5, side="against")
    layers[0].circuit.paths[0] = first
    layers[0].features.cluster_activation_rates[:] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    data = graph(layers)
    link = next(edge for edge in data["edges"] if edge["kind"] == "head")
    for name in ("weight", "contrast", "zscore", "qvalue", "support", "score", "effect", "side"):
        assert link[name] == getattr(first, name)
    others = [edge for edge in data["edges"] if edge["kind"] == "head"][1:]
    assert not any("side" in edge for edge in others)
    rates = [node["activation_rate"] for node in data["nodes"] if node["layer"] == 2]
    assert rates == pytest.approx([0.1, 0.2, 0.3])
    about = data["graph"]
    assert about["circuits"] == [each.circuit.identity for each in layers]
    assert graph(layers[::-1])["graph"]["circuits"] == about["circuits"]
    assert about["objective"] == layers[0].circuit.objective
    assert about["min_share"] == GraphOptions().min_share
    assert graph(layers, GraphOptions(min_share=0.3))["graph"]["min_share"] == 0.3
    origin = layers[0].features.provenance.origin
    for name in ("model", "pretrained", "weights_fingerprint", "images_fingerprint"):
        assert about[name] == getattr(origin, name)
    assert (
        "objective"
        not in graph([make_layer(each.features.layer, each.features.labels) for each in layers])[
            "graph"
        ]
    )


def test_a_direction_is_named_whichever_layer_has_edges_with_sides(layers):
    paths = layers[1].circuit.paths
    paths[0] = replace(paths[0], effect=0.5, side="for")
    assert "objective" in graph(layers)["graph"]


def test_a_flow_counts_the_tokens_of_both_and_may_be_just_large_enough(layers):
    below, above = (layer.features.labels for layer in layers)
    both = int(((below == 0) & (above == 2)).sum())
    share = both / int((below == 0).sum())
    for least, there in ((share, True), (share + 1e-9, False)):
        found = [
            edge
            for edge in graph(layers, min_share=least)["edges"]
            if (edge["kind"], edge["source"], edge["target"]) == ("flow", "2.0", "5.2")
        ]
        assert [edge["tokens"] for edge in found] == [both] * there


def test_a_graph_of_paths_has_their_ends_and_the_flows_between_those(layers):
    layers[0].circuit.paths[:] = layers[0].circuit.paths[:1]
    layers[1].circuit.paths[:] = layers[1].circuit.paths[:1]
    data = graph(layers, min_share=0.0, paths=True)
    ends = {
        f"{layer.features.layer}.{end}"
        for layer in layers
        for edge in layer.circuit.paths
        for end in (edge.cluster_id, edge.dst_cluster)
    }
    assert {node["id"] for node in data["nodes"]} == ends
    flows = {(e["source"], e["target"]) for e in data["edges"] if e["kind"] == "flow"}
    assert flows
    assert {end for pair in flows for end in pair} <= ends
    # Without any path there is no layer to leave out.
    for layer in layers:
        layer.circuit.paths.clear()
    assert graph(layers, paths=True)["graph"]["layers"] == [2, 5]
    assert graph(layers, paths=True)["nodes"] == []


def test_tokens_of_many_images_are_all_counted():
    low, high = torch.zeros(70_000, 1, dtype=torch.int64), torch.ones(70_000, 1, dtype=torch.int64)
    assert joint_counts(low, high, 1, 2).tolist() == [[0, 70_000]]


def test_folders_come_in_the_order_of_their_layers_or_as_the_run_s_record_says(tmp_path):
    for layer in (2, 10, 9):
        (tmp_path / f"layer_{layer}").mkdir()
    assert [path.name for path in run_folders(tmp_path)] == ["layer_2", "layer_9", "layer_10"]
    subject = Subject(
        tower=load_tower("xaikit-demo", "random"), source=SceneSource(2, 0), options=Options()
    )
    # Folders of an earlier run stay beside those of the last one.
    write_run(tmp_path, subject, [(9, 10), (10, 11)])
    assert [path.name for path in run_folders(tmp_path)] == ["layer_9", "layer_10"]
    write_run(tmp_path, subject, [(9, 10)])
    assert run_folders(tmp_path) == []


def test_layers_that_make_no_graph_are_refused(layers, rng):
    with pytest.raises(UsageError, match="two or more layers"):
        graph(layers[:1])
    tokens = make_layer(7, torch.from_numpy(rng.integers(0, 4, (IMAGES, TOKENS))), "token")
    with pytest.raises(
        UsageError, match=r"layer 7's circuit ends at .* needs `destination=cluster`"
    ):
        graph([*layers, tokens])
    origin = replace(layers[1].features.provenance.origin, weights_fingerprint="other")
    layers[1].features.provenance.origin = origin
    with pytest.raises(UsageError, match="same model and images"):
        graph(layers)


@pytest.mark.parametrize("stream", [False, True])
def test_run_all_writes_the_graph_of_several_layers(tmp_path: Path, stream):
    options = Options(
        num_clusters=4,
        sample_tokens=500,
        num_permutations=5,
        destination="cluster",
        top_k=60,
        top_n=2,
        stream=stream,
        null_block=8,
        intervene=False,
    )
    tower, source = load_tower("xaikit-demo", "random"), SceneSource(24, 0)
    run_all(tower, source, out_dir=tmp_path, layers=[0, 2], options=options)
    data = Graph.load(tmp_path / "graph.json")
    assert {node["layer"] for node in data["nodes"]} == {0, 2}
    assert {edge["kind"] for edge in data["edges"]} == {"head", "flow"}
    (tmp_path / "graph.json").unlink()
    path, again = graph_of_folder(tmp_path)
    assert Graph.load(path) == again == data
    # Of a circuit of all layers: the ends of its edges alone, each layer's own live effects aside.
    heads = [edge for edge in data["edges"] if edge["kind"] == "head"]
    assert {node["id"] for node in data["nodes"]} == {
        edge[end] for edge in heads for end in ("source", "target")
    }
    joint = Circuit.load(tmp_path / "circuit.json")
    assert [edge["score"] for edge in heads] == [
        edge.score for layer in (0, 2) for edge in joint.paths if edge.layer == layer
    ]
    joint.layers = [[0, 1], [3, 4]]
    joint.identify().save(tmp_path / "circuit.json")
    with pytest.raises(UsageError, match="of other layers than the run"):
        graph_of_folder(tmp_path)
    with pytest.raises(UsageError, match="0 layer_<l> folders"):
        graph_of_folder(tmp_path / "layer_0")


@pytest.fixture
def folder(layers, tmp_path: Path) -> Path:
    """Two layers as single commands leave them, with a live effect of the first one's edge."""
    for layer in layers:
        root = tmp_path / f"layer_{layer.features.layer}"
        root.mkdir()
        layer.features.save(root / "features.safetensors")
        layer.circuit.save(root / "circuit.json")
    live_effect(layers[0].circuit.paths[0], 0.25)[1].save(tmp_path / "layer_2" / "intervene.json")
    return tmp_path


def test_edges_of_other_clusters_than_the_layer_s_are_refused(layers, folder):
    """What a run that was cut short left, or a stage that was run again by hand."""
    other = replace(layers[0].features, labels=layers[1].features.labels).identify()
    with pytest.raises(UsageError, match="circuit of layer 2 was not made from its features"):
        graph([replace(layers[0], features=other), layers[1]])
    made = fitted(2, layers[0].features.labels)[1]
    made.save(folder / "layer_2" / "fit.safetensors")
    joint = replace(layers[0].circuit, layers=[[2, 3], [5, 6]])
    for fit_2, refused in ((made.identity, False), ("of an earlier run", True)):
        joint.provenance.parents["fit_2"] = fit_2
        joint.identify().save(folder / "circuit.json")
        with pytest.raises(UsageError, match="of other fits") if refused else nullcontext():
            graph_of_folder(folder)


def heads_of(data: Graph, layer: int) -> list[dict]:
    edges = [edge for edge in data["edges"] if edge["kind"] == "head"]
    return [edge for edge in edges if edge["attention_layer"] == layer + 1]


def test_without_a_circuit_of_all_layers_each_layer_s_own_is_joined(layers, folder):
    for layer in layers:
        layer.circuit.paths[:] = layer.circuit.paths[:1]
        layer.circuit.save(folder / f"layer_{layer.features.layer}" / "circuit.json")
    path, data = graph_of_folder(folder, GraphOptions(min_share=0.2))
    assert Graph.load(path) == data
    assert data == graph_of_folder(folder, min_share=0.2)[1]
    assert data["graph"]["circuits"] == [each.circuit.identity for each in layers]
    assert data["graph"]["min_share"] == 0.2
    for layer in layers:
        scores = [edge.score for edge in layer.circuit.paths]
        assert [edge["score"] for edge in heads_of(data, layer.features.layer)] == scores
    assert heads_of(data, 2)[0]["live_effect"] == 0.25
    # Clusters without an edge are there, as long as nobody asks for paths alone.
    assert {node["id"] for node in data["nodes"]} == {
        f"{each.features.layer}.{cluster}"
        for each in layers
        for cluster, size in enumerate(each.features.cluster_sizes.tolist())
        if size
    }


def test_a_circuit_of_one_layer_at_the_root_is_an_earlier_run_s(layers, folder):
    layers[0].circuit.save(folder / "circuit.json")
    _, data = graph_of_folder(folder)
    assert data["graph"]["circuits"] == [each.circuit.identity for each in layers]


def test_a_circuit_of_all_layers_comes_with_its_own_live_effects_and_sides(layers, folder):
    """Those of each layer alone are of other edits."""
    paths = [
        replace(edge, layer=each.features.layer, effect=0.5, side="for")
        for each in layers
        for edge in each.circuit.paths[:2]
    ]
    joint = replace(
        layers[0].circuit,
        paths=paths,
        layers=[[2, 3], [5, 6]],
        objective={"kind": "toward", "toward": "red", "against": ""},
        rank="reach",
        top_k=9,
    )
    joint.identify().save(folder / "circuit.json")
    _, data = graph_of_folder(folder)
    assert data["graph"]["objective"] == joint.objective
    assert [edge["live_effect"] for edge in heads_of(data, 2)] == [None, None]
    live_effect(paths[0], 0.75)[1].save(folder / "intervene.json")
    _, data = graph_of_folder(folder)
    assert [edge["live_effect"] for edge in heads_of(data, 2)] == [0.75, None]
    part = of_layer(joint, layers[1].features)
    assert (part.layer, part.rank, part.top_k, part.destination) == (5, "reach", 9, "cluster")
    assert [edge.layer for edge in part.paths] == [5, 5]


def test_one_layer_makes_no_graph_and_is_said_to_be_one(layers, tmp_path: Path):
    (tmp_path / "layer_2").mkdir()
    with pytest.raises(UsageError, match="has 1 layer_<l> folders; a graph joins two or more"):
        graph_of_folder(tmp_path)
