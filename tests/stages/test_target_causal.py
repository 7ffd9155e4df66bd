"""`target-causal` against loops over the rows and over the same permutations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.results import TargetCausal
from xaikit.errors import UsageError
from xaikit.passes import columns
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import EdgeTests, TargetCausalOptions, target_causal
from xaikit.statistics.permutations import image_permutations

K, DRAWS = 4, 29
WHERE = pytest.mark.parametrize("where", ["token", "cluster"])


def parts(A, c, where="token", heldout=None):
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, heldout)
    made = fit(trace, features, destination=where, num_permutations=5)
    return trace, features, made, circuit(made, top_k=12)


@WHERE
@pytest.mark.parametrize("heldout", [None, [1, 3, 4, 6]])
def test_effects_and_pvalues(where, heldout):
    A, c = slow.random_case(0, B=8, N=4)
    train = np.setdiff1d(np.arange(8), heldout or [])
    test = np.array(heldout or range(8))
    made = parts(A, c, where, heldout)
    found = target_causal(*made, top_n=6, num_permutations=DRAWS, seed=4)
    P = slow.cell_means(A[train], c[train], K, where)
    B, b = A[test], c[test]
    orders = [np.arange(len(test)), *image_permutations(len(test), DRAWS, 4)]
    assert len(found.effects) == 6
    for effect in found.effects:
        k, h = effect.cluster_id, effect.head
        d = effect.dst_token if where == "token" else effect.dst_cluster
        assert (effect.dst_token is None) == (where == "cluster")
        assert effect.support == slow.support(c[train], K, where)[k, d]
        assert effect.edge_effect == pytest.approx(abs(P[k, h, d]), rel=1e-5)
        assert effect.alignment_gain == pytest.approx(
            slow.alignment_gain(B, b, k, h, d, P[k, h, d], where), rel=1e-5, abs=1e-6
        )
        own = [slow.cell_means(B, b[order], K, where)[k, h, d] for order in orders]
        gains = [
            slow.alignment_gain(B, b[order], k, h, d, weight, where)
            for order, weight in zip(orders, own, strict=True)
        ]
        sizes = np.abs(own).tolist()
        assert effect.edge_pvalue == slow.pvalue(sizes[0], sizes[1:])
        assert effect.alignment_pvalue == slow.pvalue(gains[0], gains[1:])


@WHERE
def test_first_edges_of_the_circuit_largest_effect_first(where):
    made = parts(*slow.random_case(1, B=8), where)
    found = target_causal(*made, top_n=5, num_permutations=3)
    sizes = [effect.edge_effect for effect in found.effects]
    assert sizes == sorted(sizes, reverse=True)
    tested = {(e.cluster_id, e.head, e.dst_token, e.dst_cluster) for e in found.effects}
    paths = made[3].paths[:5]
    assert tested == {(p.cluster_id, p.head, p.dst_token, p.dst_cluster) for p in paths}


def test_an_edge_that_no_permutation_changes_has_p_one():
    A, c = slow.random_case(2, B=9)
    c[:, 0] = 2
    A[:, :, 0, :] += 50.0
    found = target_causal(*parts(A.astype(np.float32).astype(float), c), num_permutations=DRAWS)
    still = [effect for effect in found.effects if effect.cluster_id == 2]
    assert still
    assert {(e.edge_pvalue, e.alignment_pvalue) for e in still} == {(1.0, 1.0)}


def test_a_strong_edge_is_found_and_pure_noise_is_not():
    A, c = slow.random_case(3, B=20, empty=3)
    A[:, 0, :, 1] += 4.0 * (c == 0)
    trace, features, made, _ = parts(A, c)
    strongest = circuit(made, top_k=1, rank="zscore")
    assert (strongest.paths[0].head, strongest.paths[0].dst_token) == (0, 1)
    found = target_causal(trace, features, made, strongest, num_permutations=99).effects[0]
    if strongest.paths[0].cluster_id == 0:
        assert found.edge_pvalue == 0.01
    noise = target_causal(
        *parts(np.random.default_rng(0).normal(size=A.shape), c), num_permutations=19
    )
    assert {effect.edge_pvalue for effect in noise.effects} != {1 / 20}


def test_round_trip_and_fields_of_the_contract(tmp_path):
    found = target_causal(*parts(*slow.random_case(4)), num_permutations=3)
    found.save(tmp_path / "target.json")
    assert TargetCausal.load(tmp_path / "target.json") == found
    written = found.to_dict()
    assert {
        *("trace_file", "features_file", "fit_file", "circuit_file"),
        *("top_n", "num_permutations", "seed", "effects"),
    } <= set(written)
    record = {
        *("cluster_id", "head", "dst_token", "support", "edge_effect", "edge_pvalue"),
        *("alignment_gain", "alignment_pvalue"),
    }
    assert all(record <= set(each) for each in written["effects"])


def test_parts_that_do_not_belong_together_are_refused():
    trace, features, made, found = parts(*slow.random_case(5))
    other = parts(*slow.random_case(6))
    with pytest.raises(UsageError, match="circuit file was not made from this fit file"):
        target_causal(trace, features, made, other[3])
    with pytest.raises(UsageError, match="fit file was not made from this features file"):
        target_causal(trace, features, other[2], other[3])
    with pytest.raises(UsageError, match="top_n=0"):
        target_causal(trace, features, made, found, top_n=0)
    again = make_trace(trace.attn_logits_l1)
    again.provenance.next_layer = 5
    with pytest.raises(UsageError, match="features file was not made from this trace"):
        target_causal(again, features, made, found)


def test_equal_effects_stay_in_the_circuits_order():
    made = parts(np.full((6, 2, 5, 5), 2.0), slow.random_case(1)[1])
    found = target_causal(*made, top_n=9, num_permutations=2)
    assert [effect.key for effect in found.effects] == [path.key for path in made[3].paths[:9]]


def test_of_many_test_images_the_seed_draws_some_and_the_result_says_how_many(monkeypatch):
    trace, features, made, found = parts(*slow.random_case(1, B=20))
    monkeypatch.setattr("xaikit.passes.columns.TEST_IMAGES", 7)
    read = [columns.column_of(edge) for edge in found.paths[:2]]
    drawn = []
    for seed in (1, 2):
        options = TargetCausalOptions(top_n=2, num_permutations=2, seed=seed)
        images = EdgeTests(features, made, found, trace.info, options).images
        assert images.tolist() == columns.tested_images(range(20), read, 5, seed).tolist()
        drawn.append(images.tolist())
    assert drawn[0] != drawn[1]
    result = target_causal(trace, features, made, found, options)
    assert result.num_test_images == result.provenance.options["test_images"] == 7


def test_only_the_columns_of_the_edges_that_are_tested_are_read():
    trace, features, made, found = parts(*slow.random_case(1, B=8))
    test = EdgeTests(features, made, found, trace.info, TargetCausalOptions(top_n=1))
    assert test.columns.bytes_needed(5) == 8 * 4 * 5


def test_edges_are_read_where_their_images_are_among_the_candidates():
    """Of a trace that lost its second and fifth candidate."""
    trace, features, made, found = parts(*slow.random_case(1, B=6))
    trace.info.skipped, trace.info.skipped_at = [["a", "?"], ["b", "?"]], [1, 4]
    test = EdgeTests(features, made, found, trace.info, TargetCausalOptions())
    assert test.candidates.tolist() == [0, 2, 3, 5, 6, 7]
    assert [block.images.tolist() for block in test.blocks()] == [[0, 2, 3, 5, 6, 7]]


def test_guided_clusters_without_held_out_images_have_effects_and_no_tests():
    A, c = slow.random_case(3, B=8)
    trace = make_trace(torch.from_numpy(A))
    features = replace(make_features(trace, torch.from_numpy(c), K), method="guided").identify()
    made = fit(trace, features, num_permutations=2)
    found = target_causal(trace, features, made, circuit(made, top_k=3), num_permutations=2)
    assert min(effect.edge_effect for effect in found.effects) > 0
    assert all(effect.alignment_gain is not None for effect in found.effects)
    for effect in found.effects:
        assert effect.edge_pvalue is effect.alignment_pvalue is effect.qvalue is None


def test_a_result_says_what_it_was_made_of_and_an_effect_what_its_edge_is():
    trace, features, made, found = parts(*slow.random_case(5, B=8), heldout=[1, 3, 5])
    features.trace_file = "of/trace.safetensors"
    for part, name in ((features, "features"), (made, "fit"), (found, "circuit")):
        part.path = Path(f"of/{name}.x")
    found.paths = [
        replace(
            edge, qvalue=0.01 * at, testable=at != 1, dst_kind=f"kind {at}", dst_name=f"name {at}"
        )
        for at, edge in enumerate(found.paths[:4])
    ]
    result = target_causal(trace, features, made, found, num_permutations=2)
    named = (result.trace_file, result.features_file, result.fit_file, result.circuit_file)
    assert named == ("of/trace.safetensors", "of/features.x", "of/fit.x", "of/circuit.x")
    assert (result.heldout, result.num_test_images) == (True, 3)
    assert result.provenance.parents["circuit"] == found.identity
    for effect, edge in zip(result.effects, found.paths, strict=True):
        for name in ("key", "support", "qvalue", "testable", "dst_kind", "dst_name"):
            assert getattr(effect, name) == getattr(edge, name), name
