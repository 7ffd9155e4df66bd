"""`fit` against the contract's definitions, in sample and with held-out images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.tensors import Fit
from xaikit.errors import UsageError
from xaikit.passes.pair_sums import SumOptions
from xaikit.stages import fit as module
from xaikit.stages.fit import FitOptions, fit, part_labels, sum_options
from xaikit.statistics.permutations import image_permutations

K = 4
HELDOUT = [1, 4, 5, 9]
WHERE = pytest.mark.parametrize("where", ["token", "cluster"])


def fitted(A, c, where, heldout=None, **options):
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, heldout)
    return fit(trace, features, destination=where, **{"num_permutations": 9, **options})


def case(seed):
    A, c = slow.random_case(seed, B=10)
    c[HELDOUT[0], 0] = 2
    test = np.array(HELDOUT)
    train = np.setdiff1d(np.arange(10), test)
    return A, c, (A[train], c[train]), (A[test], c[test])


@WHERE
def test_every_field_in_sample(where):
    A, c = slow.random_case(0)
    found = fitted(A, c, where)
    P = slow.cell_means(A, c, K, where)
    np.testing.assert_allclose(found.prototypes, P, rtol=1e-5)
    assert found.counts.tolist() == np.bincount(c.ravel(), minlength=K).tolist()
    assert found.counts.dtype == torch.int64
    assert found.prototypes.dtype == torch.float32
    np.testing.assert_allclose(found.contrast, slow.contrast(A, c, K, where), atol=1e-5)
    np.testing.assert_allclose(found.energy, slow.energy(A, c, K, where), rtol=1e-4, atol=1e-4)
    assert found.mse == pytest.approx(((A - slow.predicted(P, c, where)) ** 2).mean())
    for name, value in slow.all_r2((A, c), (A, c), K, where).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9)
    assert found.support.tolist() == slow.support(c, K, where).tolist()
    np.testing.assert_allclose(found.position_mean, slow.position_mean(A), rtol=1e-6)


@WHERE
def test_held_out_images_are_fitted_by_none_and_tested_alone(where):
    A, c, train, test = case(1)
    found = fitted(A, c, where, HELDOUT)
    np.testing.assert_allclose(found.prototypes, slow.cell_means(*train, K, where), rtol=1e-5)
    np.testing.assert_allclose(found.contrast, slow.contrast(*train, K, where), atol=1e-5)
    np.testing.assert_allclose(found.energy, slow.energy(*train, K, where), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.position_mean, slow.position_mean(train[0]), rtol=1e-6)
    assert found.counts.tolist() == np.bincount(train[1].ravel(), minlength=K).tolist()
    assert found.counts[2] == 0
    in_sample, held_out = (slow.all_r2(train, each, K, where) for each in (train, test))
    assert {name: getattr(found, name) for name in in_sample} == pytest.approx(in_sample)
    assert found.heldout_r2 == pytest.approx(held_out)
    alone_tested, alone_train = (fitted(*each, where, null="moments") for each in (test, train))
    torch.testing.assert_close(found.edge_zscores, alone_tested.edge_zscores)
    torch.testing.assert_close(found.discovery_zscores, alone_train.edge_zscores)
    # By moments, though so few held-out images are tested by sampling.
    assert found.null == "sampled"
    torch.testing.assert_close(found.discovery_pvalues, alone_train.edge_pvalues)
    torch.testing.assert_close(found.test_ablation, alone_tested.test_ablation)
    torch.testing.assert_close(found.test_injection, alone_tested.test_injection)
    torch.testing.assert_close(found.null_ablation, alone_tested.null_ablation)
    torch.testing.assert_close(found.null_injection, alone_tested.null_injection)


@WHERE
def test_nothing_that_chooses_edges_depends_on_the_held_out_logits(where):
    A, c, _, _ = case(2)
    changed = A.copy()
    changed[HELDOUT] += 1.0 + np.random.default_rng(0).normal(size=changed[HELDOUT].shape)
    one, other = (fitted(each, c, where, HELDOUT) for each in (A, changed))
    for name in (
        "prototypes",
        "contrast",
        "energy",
        "discovery_zscores",
        "discovery_pvalues",
        "position_mean",
        "counts",
    ):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert not torch.equal(one.edge_zscores, other.edge_zscores)


@WHERE
def test_qvalues_are_of_all_edges(where):
    A, c = slow.random_case(3, B=24)
    found = fitted(A, c, where)
    expected = slow.benjamini_hochberg(found.edge_pvalues.numpy())
    np.testing.assert_allclose(found.edge_qvalues.reshape(-1), expected, rtol=1e-9)
    assert (found.edge_pvalues[2] == 1).all()
    assert (found.edge_pvalues < 0.5).any()


@WHERE
def test_null_of_effects_uses_the_same_permutations_as_a_slow_loop(where):
    A, c = slow.random_case(4, B=7, N=4)
    found = fitted(A, c, where, seed=5)
    for draw, order in enumerate(image_permutations(7, 9, 5)):
        P = slow.cell_means(A, c[order], K, where)
        for k in range(K):
            expected = slow.ablation_effect(P, c, k, where), slow.injection_effect(P, c, k, where)
            pair = float(found.null_ablation[draw, k]), float(found.null_injection[draw, k])
            assert pair == pytest.approx(expected, rel=1e-5)
    P = slow.cell_means(A, c, K, where)
    for k in range(K):
        expected = slow.ablation_effect(P, c, k, where), slow.injection_effect(P, c, k, where)
        pair = float(found.test_ablation[k]), float(found.test_injection[k])
        assert pair == pytest.approx(expected, rel=1e-5)


def test_few_images_are_tested_by_sampling_and_many_by_moments():
    few, many = (fitted(*slow.random_case(5, B=B), "token") for B in (19, 20))
    assert (few.null, many.null) == ("sampled", "moments")
    assert (few.edge_pvalues * 10 % 1 < 1e-9).all()
    assert [few.null_methods[code] for code in few.edge_null_methods.unique()] == [
        "not testable",
        "sampled",
    ]
    normal = torch.special.erfc(many.edge_zscores.double().abs() / 2**0.5)
    torch.testing.assert_close(many.edge_pvalues, normal, rtol=0, atol=0.01)
    assert many.edge_pvalues.unique().numel() > 20
    used = {many.null_methods[code] for code in many.edge_null_methods.unique()}
    assert used <= {"not testable", "normal", "moments"}
    assert (many.edge_null_methods[2] == 0).all()


@WHERE
def test_one_image_has_no_evidence(where):
    found = fitted(*slow.random_case(6, B=1), where)
    assert (found.edge_pvalues == 1).all()
    assert (found.edge_zscores == 0).all()
    assert found.null_ablation.shape == (0, K)
    assert found.r2_position == 1.0


@WHERE
def test_round_trip(where, tmp_path):
    found = fitted(*case(7)[:2], where, HELDOUT)
    found.features_file = str(tmp_path / "f.st")
    found.save(tmp_path / "fit.safetensors")
    again = Fit.load(tmp_path / "fit.safetensors")
    for name in Fit.TENSORS:
        one, other = getattr(found, name), getattr(again, name)
        assert (one is other is None) or torch.equal(one, other), name
    for name in (
        "provenance",
        "identity",
        "heldout_r2",
        "mse",
        "r2",
        "destination",
        "features_file",
    ):
        assert getattr(found, name) == getattr(again, name)


def test_scattered_and_chunked_images_are_the_same_images():
    A = case(8)[0]
    trace = make_trace(torch.from_numpy(A))
    for chunk_bytes in (1, 900, 1 << 20):
        parts = list(trace.iter_logits([9, 0, 1, 2, 5], chunk_bytes=chunk_bytes))
        assert np.concatenate([at for at, _ in parts]).tolist() == [0, 1, 2, 5, 9]
        found = torch.cat([logits for _, logits in parts])
        assert torch.equal(found, torch.from_numpy(A[[0, 1, 2, 5, 9]]).float())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"destination": "head"}, "destination=head"),
        ({"null": "bootstrap"}, "null=bootstrap"),
        ({"num_permutations": 0}, "num_permutations=0"),
        ({"null_block": 1}, "null_block=1: expected 2 or more images, or 0"),
    ],
)
def test_wrong_options_are_named(options, named):
    trace = make_trace(torch.zeros(2, 1, 3, 3))
    features = make_features(trace, torch.zeros(2, 3, dtype=torch.int64), 2)
    with pytest.raises(UsageError, match=named):
        fit(trace, features, **options)


def test_features_of_another_trace_are_refused():
    trace, other = make_trace(torch.zeros(2, 1, 3, 3)), make_trace(torch.zeros(3, 1, 3, 3))
    other.provenance.next_layer = 5
    features = make_features(other, torch.zeros(3, 3, dtype=torch.int64), 2)
    with pytest.raises(UsageError, match="features file was not made from this trace") as caught:
        fit(trace, features)
    assert "\n" not in str(caught.value)


def test_a_fit_says_what_it_was_made_of_and_what_was_asked_for_reaches_its_passes(monkeypatch):
    A, c, _, _ = case(3)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, HELDOUT)
    features.trace_file, features.path = "of/trace.safetensors", Path("of/features.safetensors")
    asked = {}

    def told(name, read):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given: asked.update({name: given[read]}) or real(*given)
        )

    told("make_plan", slice(1, None))
    told("budget", slice(None))
    told("fit_controls", slice(2, None))
    monkeypatch.setattr("xaikit.passes.plan.NULL_IMAGES", 3)
    found = fit(trace, features, num_permutations=3, null_block=3, seed=7, memory=1 << 28)
    assert asked == {"make_plan": (3, 7), "budget": (1 << 28,), "fit_controls": (1, [1, 4], 7)}
    assert found.trace_file == "of/trace.safetensors"
    assert found.features_file == "of/features.safetensors"
    assert (found.num_images, found.num_test_images, found.heldout) == (6, 4, True)
    # Permutations are sampled on the first blocks alone.
    assert 0 < found.num_null_images < 4
    assert (found.tokens, found.grid, found.prefix_kinds) == (5, [1, 4], ["class token"])
    assert (found.null_block, found.method) == (3, "kmeans")
    assert found.token_norms.tolist() == [1.0] * 5


def test_a_fit_says_which_blocks_were_permuted_within_where_it_was_asked_for_none(monkeypatch):
    A, c = slow.random_case(3)
    assert fitted(A, c, "token").null_block == 0
    for name in ("sums", "pair_sums"):
        monkeypatch.setattr(f"xaikit.passes.{name}.exact_moments", lambda *_: False)
    assert fitted(A, c, "token").null_block == 32


def test_what_is_added_up_is_what_the_options_say():
    options = FitOptions(
        destination="cluster", num_permutations=7, null_block=4, seed=3, controls=False
    )
    assert sum_options(options, 5) == SumOptions(
        clusters=5, destination="cluster", draws=7, null_block=4, seed=3, controls=False
    )


def test_labels_of_a_part_are_in_the_order_of_the_images_whatever_that_of_the_list():
    trace = make_trace(torch.zeros(4, 1, 3, 3))
    labels = torch.arange(12).reshape(4, 3)
    features = make_features(trace, labels, 12, [3, 1])
    found = part_labels(replace(features, discovery=[2, 0]))
    assert found["discovery"].tolist() == labels[[0, 2]].tolist()
    assert found["heldout"].tolist() == labels[[1, 3]].tolist()


@WHERE
def test_guided_clusters_are_tested_on_held_out_images_alone(where):
    A, c, _, _ = case(4)
    trace = make_trace(torch.from_numpy(A))
    for heldout in (HELDOUT, []):
        features = make_features(trace, torch.from_numpy(c), K, heldout)
        features = replace(features, method="guided").identify()
        found = fit(trace, features, destination=where, num_permutations=3)
        assert (found.method, found.testable) == ("guided", bool(heldout))
        for name in ("edge_zscores", "edge_pvalues", "edge_qvalues"):
            assert bool(getattr(found, name).isnan().all()) != bool(heldout)
        if not heldout:
            assert found.edge_null_methods.unique().tolist() == [0]
            assert found.null_methods[0] == "not testable"
