"""Circuits of resampled images: what survives, and that every ranking is resampled alike."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.results import Circuit
from xaikit.artifacts.tensors import Fit
from xaikit.errors import UsageError
from xaikit.stages.bootstrap import bootstrap
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.statistics.multiple import discovery_qvalues
from xaikit.statistics.sampling import random_blocks
from xaikit.statistics.stability import bootstrap_weights

K = 3
HELDOUT = list(range(1, 40, 4))
FITS: dict[str, Fit] = {}
"""Of the parts below, by what their edges end at."""


@pytest.fixture(scope="module")
def parts():
    """One edge that is far above all others, and noise."""
    A, c = slow.random_case(0, B=40, N=6, K=K, empty=9, shift=0.0)
    A[:, 1, :, 4] += 3.0 * (c == 2)
    trace = make_trace(torch.from_numpy(A))
    return trace, make_features(trace, torch.from_numpy(c), K, HELDOUT)


def circuits(parts, rank, where="token", top_k=3, **options):
    trace, features = parts
    if where not in FITS:
        FITS[where] = fit(trace, features, destination=where, null="moments", controls=False)
    found = FITS[where]
    chosen = circuit(found, top_k=top_k, rank=rank, **options)
    return found, chosen, bootstrap(trace, features, found, chosen, resamples=12, seed=1)


@pytest.mark.parametrize("rank", ["weight", "contrast", "energy", "zscore"])
def test_the_planted_edge_survives_and_noise_does_not(parts, rank):
    _, chosen, found = circuits(parts, rank, top_k=4)
    first, *rest = found.paths
    assert (first.cluster_id, first.head, first.dst_token) == (2, 1, 4)
    assert first.survival == 1.0
    assert min(edge.survival for edge in rest) < 1.0
    assert [edge.cluster_id for edge in found.paths] == [edge.cluster_id for edge in chosen.paths]
    own = found.stability
    assert own["resamples"] == 12
    assert own["jaccard_chance"] < own["jaccard"] < 1.0
    assert own["survival"] == pytest.approx(np.mean([edge.survival for edge in found.paths]))


@pytest.mark.parametrize("where", ["token", "cluster"])
@pytest.mark.parametrize("rank", ["weight", "contrast", "zscore"])
def test_survival_is_the_share_of_fits_on_resampled_images_that_choose_the_edge(parts, where, rank):
    trace, features = parts
    _, _, found = circuits(parts, rank, where, top_k=5)
    held = []
    for weights in bootstrap_weights(30, 12, seed=1).long().numpy():
        drawn = np.repeat(features.discovery, weights)
        resample = make_trace(trace.attn_logits_l1[drawn])
        labels = make_features(resample, features.labels[drawn], K)
        fitted = fit(resample, labels, destination=where, num_permutations=1, controls=False)
        paths = circuit(fitted, top_k=5, rank=rank).paths
        held.append({(edge.cluster_id, edge.head, edge.destination) for edge in paths})
    for edge in found.paths:
        key = (edge.cluster_id, edge.head, edge.destination)
        assert edge.survival == pytest.approx(np.mean([key in each for each in held]))


def test_a_circuit_with_survival_is_written_and_read(parts, tmp_path):
    _, chosen, found = circuits(parts, "contrast")
    assert found.identity != chosen.identity
    found.save(tmp_path / "circuit.json")
    again = Circuit.load(tmp_path / "circuit.json")
    assert again.paths == found.paths
    assert again.stability == found.stability
    assert again.provenance.options["bootstrap"] == 12
    assert again.provenance.options["bootstrap_seed"] == again.stability["seed"] == 1


def test_a_filtered_circuit_is_resampled_among_the_edges_that_pass(parts):
    # All that pass are chosen by every resample, whatever else is stronger.
    fitted, _, found = circuits(parts, "weight", max_qvalue=1e-4, top_k=10)
    passing = int((discovery_qvalues(fitted) <= 1e-4).sum())
    assert 1 <= passing <= 8
    assert [edge.survival for edge in found.paths] == [1.0] * passing
    # None but these could have been chosen by chance.
    assert found.stability["jaccard_chance"] == 1.0
    limit = float(discovery_qvalues(fitted).flatten().sort().values[passing - 1])
    _, _, just = circuits(parts, "weight", max_qvalue=limit, top_k=10)
    assert [edge.survival for edge in just.paths] == [1.0] * passing
    _, _, none = circuits(parts, "weight", max_qvalue=0.0)
    assert (none.paths, none.stability["survival"]) == ([], 1.0)
    _, _, unfiltered = circuits(parts, "weight", top_k=passing)
    assert min(edge.survival for edge in unfiltered.paths) < 1.0


def test_chance_is_among_the_edges_that_there_are(parts):
    """An edge of a cluster without tokens could not have been chosen."""
    trace, features = parts
    padded = make_features(trace, features.labels, K + 2, HELDOUT)
    fitted = fit(trace, padded, num_permutations=1, controls=False)
    chosen = circuit(fitted, top_k=4)
    found = bootstrap(trace, padded, fitted, chosen, resamples=2)
    assert found.stability["jaccard_chance"] == pytest.approx(4 / (2 * K * 2 * 6 - 4))


def test_scores_of_resamples_are_of_the_blocks_that_the_fit_permuted_within(parts, monkeypatch):
    trace, features = parts
    blocks = []

    def told(images, block, seed):
        blocks.append(block)
        return random_blocks(images, block, seed)

    monkeypatch.setattr("xaikit.stages.bootstrap.random_blocks", told)
    for given in (5, 0):
        fitted = fit(trace, features, num_permutations=1, controls=False, null_block=given)
        bootstrap(trace, features, fitted, circuit(fitted, rank="zscore"), resamples=2)
    assert blocks == [5, 5, 32, 32]


def test_rankings_that_run_the_model_are_refused_by_name(parts):
    trace, features = parts
    fitted = fit(trace, features, num_permutations=9, controls=False)
    scores = torch.rand(fitted.prototypes.shape)
    chosen = circuit(fitted, rank="attribution", scores=scores)
    with pytest.raises(UsageError, match=r"rank=attribution.* weight, contrast, energy, zscore"):
        bootstrap(trace, features, fitted, chosen)
    with pytest.raises(UsageError, match="resamples=0"):
        bootstrap(trace, features, fitted, circuit(fitted), resamples=0)


def test_energy_is_of_the_position_mean_of_all_images(parts):
    trace, features = parts
    fitted, _, found = circuits(parts, "energy", top_k=5)
    A, c = trace.attn_logits_l1[features.discovery].double(), features.labels[features.discovery]
    squares = (A - fitted.position_mean.double()).square()
    maps = torch.nn.functional.one_hot(c, K).double()
    own = torch.einsum("bik,bhij->bkhj", maps, squares)
    held = [
        set(torch.einsum("b,bkhj->khj", weights.double(), own).flatten().topk(5).indices.tolist())
        for weights in bootstrap_weights(30, 12, seed=1)
    ]
    for edge in found.paths:
        place = fitted.space.flat(*edge.key)
        assert edge.survival == pytest.approx(np.mean([place in each for each in held]))


def test_edges_of_a_cluster_that_a_resample_lost_do_not_survive_it():
    A, c = slow.random_case(0, B=8, N=3, K=2, empty=1)
    c[2] = 1
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), 2)
    fitted = fit(trace, features, num_permutations=1, controls=False)
    found = bootstrap(trace, features, fitted, circuit(fitted, top_k=99), resamples=9, seed=1)
    held = float((bootstrap_weights(8, 9, seed=1)[:, 2] > 0).double().mean())
    assert 0.0 < held < 1.0
    for edge in found.paths:
        assert edge.survival == pytest.approx(held if edge.cluster_id == 1 else 1.0)


def test_parts_that_do_not_belong_together_are_refused(parts):
    trace, features = parts
    fitted, chosen, _ = circuits(parts, "weight")
    other = make_features(trace, features.labels.roll(1, 0), K, HELDOUT)
    with pytest.raises(UsageError, match="fit file was not made from this features file"):
        bootstrap(trace, other, fitted, chosen)
    again = fit(trace, other, num_permutations=1, controls=False)
    with pytest.raises(UsageError, match="circuit file was not made from this fit file"):
        bootstrap(trace, other, again, chosen)
