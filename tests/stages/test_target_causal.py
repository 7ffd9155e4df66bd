"""`target-causal` against loops over the rows and over the same permutations."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.results import TargetCausal
from xaikit.errors import UsageError
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal
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
