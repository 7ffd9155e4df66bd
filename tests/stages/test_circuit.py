"""`circuit`: which edges, in which order, and how they are grouped."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.results import Circuit
from xaikit.errors import UsageError
from xaikit.interventions import Objective
from xaikit.report import heatmaps
from xaikit.stages import circuit as module
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit

K = 4
WHERE = pytest.mark.parametrize("where", ["token", "cluster"])


def fitted(A, c, where="token", **options):
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K)
    return fit(trace, features, destination=where, num_permutations=19, **options)


@WHERE
def test_edges_by_absolute_prototype_without_empty_clusters(where):
    A, c = slow.random_case(0)
    P, n = slow.cell_means(A, c, K, where), slow.support(c, K, where)
    edges = [at for at in itertools.product(*map(range, P.shape)) if n[at[0], at[2]]]
    edges.sort(key=lambda at: -abs(P[at]))
    found = circuit(fitted(A, c, where), top_k=1000).paths
    assert [(p.cluster_id, p.head, p.destination) for p in found] == edges
    for path, at in zip(found, edges, strict=True):
        assert path.weight == pytest.approx(P[at], rel=1e-5)
        assert path.support == n[at[0], at[2]]
        assert (path.dst_token, path.dst_cluster) == (
            (at[2], None) if where == "token" else (None, at[2])
        )


@WHERE
def test_ties_are_in_index_order(where):
    A, c = slow.random_case(1)
    A = 2.0 * torch.ones(A.shape).numpy()
    A[:, 1] *= -1.0
    found = circuit(fitted(A, c, where), top_k=1000).paths
    order = [(p.cluster_id, p.head, p.destination) for p in found]
    assert order == sorted(order)
    assert len({p.weight for p in found}) == 2


@WHERE
def test_groups_hold_the_same_records_in_the_same_order(where):
    found = circuit(fitted(*slow.random_case(2), where), top_k=11)
    assert (found.top_k, len(found.paths)) == (11, 11)
    written = found.to_dict()
    for kind, field, name in (("by_head", "head", "head"), ("by_cluster", "cluster_id", "cluster")):
        groups = written["groups"][kind]
        for key, records in groups.items():
            index = int(key.removeprefix(f"{name}_"))
            assert records == [path for path in written["paths"] if path[field] == index]
        assert sum(map(len, groups.values())) == 11
    assert "groups" in orjson.loads(orjson.dumps(written))


@WHERE
def test_records_carry_the_fits_statistics(where):
    made = fitted(*slow.random_case(3, B=24), where)
    for path in circuit(made, top_k=20, rank="zscore").paths:
        at = path.cluster_id, path.head, path.destination
        assert path.contrast == float(made.contrast[at])
        assert path.zscore == float(made.edge_zscores[at])
        assert path.pvalue == float(made.edge_pvalues[at])
        assert path.qvalue == float(made.edge_qvalues[at])
        assert path.score == abs(path.zscore)


def test_max_qvalue_filters_before_top_k():
    A, c = slow.random_case(4, B=24)
    A[:, 0, :, 1] += 3.0 * (c == 0)
    made = fitted(A, c)
    found = circuit(made, top_k=1000, max_qvalue=0.05)
    significant = int((made.edge_qvalues <= 0.05).sum())
    assert 0 < significant < made.prototypes.numel()
    assert len(found.paths) == found.significant == significant
    assert max(path.qvalue for path in found.paths) <= 0.05
    # An edge of just this q-value is kept.
    limit = sorted({path.qvalue for path in found.paths})[1]
    kept = circuit(made, top_k=1000, max_qvalue=limit)
    assert limit in {path.qvalue for path in kept.paths}
    assert kept.max_qvalue == limit
    first = circuit(made, top_k=2, max_qvalue=0.05)
    assert first.paths == found.paths[:2]


def test_round_trip_and_fields_of_the_contract(tmp_path):
    found = circuit(fitted(*slow.random_case(5)))
    found.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json") == found
    written = orjson.loads((tmp_path / "circuit.json").read_bytes())
    assert {"fit_file", "layer", "next_layer", "top_k", "paths", "groups"} <= set(written)
    assert (written["layer"], written["next_layer"], written["top_k"]) == (2, 3, 50)
    record = {"cluster_id", "head", "dst_token", "weight", "support"}
    assert all(record <= set(each) for each in written["paths"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"max_qvalue": 1.5}, r"max_qvalue=1\.5"),
        ({"rank": "size"}, "rank=size"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UsageError, match=named):
        circuit(fitted(*slow.random_case(6)), **options)


@WHERE
def test_heatmaps_have_a_column_for_each_destination_and_say_what_it_is(
    where, tmp_path, monkeypatch
):
    drawn, original = [], heatmaps._draw
    monkeypatch.setattr(heatmaps, "_draw", lambda *args: drawn.append(original(*args)) or drawn[-1])
    found = fitted(*slow.random_case(3), where)
    circuit(found, top_k=3, heatmap_dir=tmp_path)
    named = [axes.get_xlabel() for axes in drawn[0].axes]
    shown = [len(axes.images[0].get_array()[0]) for axes in drawn[0].axes if axes.images]
    if where == "token":
        assert any(label.startswith("keys: destination patch") for label in named)
        assert sum(shown[:2]) == found.prototypes.shape[2]
    else:
        assert "keys: destination cluster" in named
        assert shown[0] == int((found.counts > 0).sum())


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_held_out_qvalues_choose_no_edge(where):
    A, c = slow.random_case(9, B=24)
    A[:, 0] += 4.0 * (c == 0)[:, :, None]
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), 4, list(range(0, 24, 2)))
    made = fit(trace, features, destination=where, num_permutations=9, null="moments")
    before = circuit(made, top_k=1000, max_qvalue=0.9)
    assert 0 < len(before.paths) < made.prototypes.numel()
    for name in ("edge_qvalues", "edge_pvalues", "edge_zscores"):
        setattr(made, name, torch.ones_like(getattr(made, name)))
    after = circuit(made, top_k=1000, max_qvalue=0.9)
    assert [edge.key for edge in after.paths] == [edge.key for edge in before.paths]
    made.discovery_pvalues = torch.ones_like(made.discovery_pvalues)
    assert circuit(made, top_k=1000, max_qvalue=0.9).paths == []


@WHERE
def test_a_circuit_says_how_many_edges_there_were_and_how_many_are_significant(where):
    A, c = slow.random_case(3)
    made = fitted(A, c, where)
    occupied = slow.support(c, K, where)[:, None].repeat(2, axis=1) > 0
    made.edge_pvalues = torch.full_like(made.edge_pvalues, 0.01)
    made.edge_qvalues = torch.full_like(made.edge_qvalues, 0.06)
    # Just small enough, of an edge with rows and of the cluster without any.
    made.edge_qvalues[0, 1, 1] = made.edge_qvalues[2, 0, 0] = 0.05
    found = circuit(made)
    assert (found.tested, found.significant) == (int(occupied.sum()), 1)
    assert circuit(replace(made, method="guided")).significant is None


def test_a_circuit_says_what_it_was_made_of_and_ranked_by():
    A, c = slow.random_case(3, B=8)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, [1, 3, 5])
    made = fit(trace, features, destination="cluster", num_permutations=2)
    made.path = Path("of/fit.safetensors")
    scores = torch.rand(made.prototypes.shape)
    effects = torch.randn(made.prototypes.shape)
    aim = Objective(kind="toward", toward="red", value=lambda out, *_: out.embedding[:, 0])
    given = {"scores": scores, "effects": effects, "objective": aim}
    found = circuit(made, rank="attribution", top_k=6, **given)
    assert (found.fit_file, found.rank) == ("of/fit.safetensors", "attribution")
    assert (found.destination, found.heldout, found.num_test_images) == ("cluster", True, 3)
    assert found.objective == aim.record()
    for path in found.paths:
        assert path.effect == float(effects[path.key])
        assert path.side == ("for" if path.effect > 0 else "against")
    assert circuit(made, scores=scores).objective == {}


def test_heatmaps_are_listed_and_their_title_says_which_layers_they_are_of(tmp_path, monkeypatch):
    asked = []

    def drawn(*given):
        asked.append(given)
        return [given[2] / "head_0.png", given[2] / "head_1.png"]

    monkeypatch.setattr(module, "draw_contrasts", drawn)
    made = fitted(*slow.random_case(3))
    found = circuit(made, heatmap_dir=tmp_path)
    title = "made-up, gates of layer 2 → attention of layer 3"
    assert asked == [(made, found.paths, tmp_path, title)]
    assert found.heatmaps == [str(tmp_path / f"head_{head}.png") for head in (0, 1)]
