"""`causal` against effects of predicted logits that are edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.options import deciding
from xaikit.artifacts.results import Causal
from xaikit.errors import UsageError
from xaikit.stages.causal import CausalOptions, causal, choose_draws
from xaikit.stages.fit import fit
from xaikit.statistics.permutations import image_permutations

K, DRAWS = 4, 39
WHERE = pytest.mark.parametrize("where", ["token", "cluster"])


def parts(A, c, where="token", heldout=None, draws=DRAWS):
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, heldout)
    return features, fit(trace, features, destination=where, num_permutations=draws, seed=2)


@WHERE
@pytest.mark.parametrize("heldout", [None, [0, 2, 3, 7]])
def test_effects_and_pvalues(where, heldout):
    A, c = slow.random_case(0, B=8, N=4)
    train = np.setdiff1d(np.arange(8), heldout or [])
    test = np.array(heldout or range(8))
    found = causal(*parts(A, c, where, heldout), num_permutations=DRAWS)
    P = slow.cell_means(A[train], c[train], K, where)
    orders = image_permutations(len(test), DRAWS, 2)
    permuted = [slow.cell_means(A[test], c[test][order], K, where) for order in orders]
    own = slow.cell_means(A[test], c[test], K, where)
    assert {effect.cluster_id for effect in found.effects} == {0, 1, 3}
    for effect in found.effects:
        k = effect.cluster_id
        assert effect.support == (c[train] == k).sum()
        for name in ("ablation", "injection"):
            define = getattr(slow, f"{name}_effect")
            assert getattr(effect, f"{name}_effect") == pytest.approx(
                define(P, c[train], k, where), rel=1e-5
            )
            null = [define(each, c[test], k, where) for each in permuted]
            expected = slow.pvalue(define(own, c[test], k, where), null)
            assert getattr(effect, f"{name}_pvalue") == pytest.approx(expected)


@WHERE
def test_qvalues_are_over_clusters_and_largest_ablation_comes_first(where):
    A, c = slow.random_case(1, B=8)
    features, made = parts(A, c, where)
    found = causal(features, made, num_permutations=DRAWS)
    sizes = [effect.ablation_effect for effect in found.effects]
    assert sizes == sorted(sizes, reverse=True)
    for name in ("ablation", "injection"):
        p = [getattr(effect, f"{name}_pvalue") for effect in found.effects]
        q = [getattr(effect, f"{name}_qvalue") for effect in found.effects]
        assert q == pytest.approx(slow.benjamini_hochberg(p))
    first = causal(features, made, max_clusters=1, num_permutations=DRAWS)
    assert first.effects == found.effects[:1]


@WHERE
def test_a_cluster_at_the_same_tokens_in_every_image_has_p_one(where):
    A, c = slow.random_case(2, B=12)
    c[:, 0] = 2
    A[:, :, 0, :] *= 100.0
    found = causal(*parts(A.astype(np.float32).astype(float), c, where), num_permutations=DRAWS)
    still = next(effect for effect in found.effects if effect.cluster_id == 2)
    if where == "token":
        assert still.ablation_pvalue == 1.0
    assert min(effect.ablation_pvalue for effect in found.effects) < 1.0


def test_fewer_permutations_are_a_seeded_choice_of_the_fits():
    features, made = parts(*slow.random_case(3, B=8))
    some = causal(features, made, num_permutations=5, seed=1)
    assert some == causal(features, made, num_permutations=5, seed=1)
    assert all((effect.ablation_pvalue * 6) % 1 < 1e-9 for effect in some.effects)
    with pytest.raises(UsageError, match="num_permutations=40: expected at most the 39"):
        causal(features, made, num_permutations=40)
    for seed in (1, 2):
        drawn = choose_draws(DRAWS, 5, seed)
        assert len(set(drawn.tolist())) == 5
        for effect in causal(features, made, num_permutations=5, seed=seed).effects:
            k = effect.cluster_id
            null = made.null_injection[drawn, k].tolist()
            expected = slow.pvalue(float(made.test_injection[k]), null)
            assert effect.injection_pvalue == pytest.approx(expected)
    assert set(choose_draws(DRAWS, 5, 1)) != set(choose_draws(DRAWS, 5, 2))


def test_one_permutation_that_moves_an_effect_makes_it_testable_and_rounding_does_not():
    features, made = parts(*slow.random_case(3, B=8), draws=3)
    observed = torch.full((K,), 2.0)
    moved, still = observed.repeat(3, 1), observed.repeat(3, 1)
    moved[0, 0] = 3.0
    # Two float32 steps below: sums in another order, and no other effect.
    moved[:, 1] -= 4e-7
    given = {"test_ablation": observed, "test_injection": observed}
    for name, other in (("ablation", "injection"), ("injection", "ablation")):
        nulls = {f"null_{name}": moved, f"null_{other}": still}
        found = causal(features, replace(made, **given, **nulls), num_permutations=3)
        effects = {effect.cluster_id: effect for effect in found.effects}
        assert [getattr(effects[k], f"{name}_testable") for k in (0, 1, 3)] == [True, False, False]
        assert not any(getattr(effect, f"{other}_testable") for effect in found.effects)
        assert getattr(effects[1], f"{name}_pvalue") == 1.0


def test_guided_clusters_without_held_out_images_have_effects_and_no_tests():
    A, c = slow.random_case(3, B=8)
    trace = make_trace(torch.from_numpy(A))
    features = replace(make_features(trace, torch.from_numpy(c), K), method="guided").identify()
    found = causal(features, fit(trace, features, num_permutations=5), num_permutations=5)
    assert min(effect.ablation_effect for effect in found.effects) > 0
    for effect in found.effects:
        assert effect.ablation_pvalue is effect.injection_pvalue is None
        assert effect.ablation_qvalue is effect.injection_qvalue is None


def test_a_result_says_what_it_was_made_of_and_tested_on():
    features, made = parts(*slow.random_case(5, B=8), heldout=[1, 3, 5])
    features.path, made.path = Path("of/features.safetensors"), Path("of/fit.safetensors")
    # Of many test images the null keeps some.
    made.num_null_images = 2
    made.kinds = ["class token"]
    found = causal(features, made, num_permutations=DRAWS, seed=3)
    assert found.features_file == "of/features.safetensors"
    assert found.fit_file == "of/fit.safetensors"
    assert (found.num_test_images, found.heldout) == (2, True)
    assert found.provenance.options == deciding(CausalOptions(num_permutations=DRAWS, seed=3))
    assert found.provenance.parents["fit"] == made.identity
    names = {effect.cluster_id: effect.src_name for effect in found.effects}
    assert names == {0: "cluster 0", 1: "cluster 1", 3: "class token"}


def test_one_image_has_p_one():
    features, made = parts(*slow.random_case(4, B=1))
    found = causal(features, made)
    assert found.effects
    assert {effect.injection_pvalue for effect in found.effects} == {1.0}
    # There is no other image to give its labels to.
    assert not any(e.ablation_testable or e.injection_testable for e in found.effects)


def test_round_trip_and_fields_of_the_contract(tmp_path):
    found = causal(
        *parts(*slow.random_case(5)),
        num_permutations=DRAWS,
    )
    found.save(tmp_path / "causal.json")
    assert Causal.load(tmp_path / "causal.json") == found
    written = found.to_dict()
    fields = {"features_file", "fit_file", "max_clusters", "num_permutations", "seed", "effects"}
    assert fields <= set(written)
    record = {
        "cluster_id",
        "support",
        "ablation_effect",
        "injection_effect",
        "ablation_pvalue",
        "injection_pvalue",
    }
    assert all(record <= set(each) for each in written["effects"])


def test_fit_of_other_features_is_refused():
    features, _ = parts(*slow.random_case(6))
    _, made = parts(*slow.random_case(7))
    with pytest.raises(UsageError, match="fit file was not made from this features file"):
        causal(features, made, num_permutations=DRAWS)
