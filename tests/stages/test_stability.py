"""The sweep on planted towers: right at the true number of groups, and worse elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace
from planted_calibration import traced

from xaikit.artifacts.options import checked
from xaikit.artifacts.studies import Stability
from xaikit.artifacts.tensors import Features
from xaikit.errors import UsageError
from xaikit.stages import stability as module
from xaikit.stages.cluster import cluster
from xaikit.stages.stability import StabilityOptions, stability
from xaikit.statistics.agreement import adjusted_rand_index, match_clusters
from xaikit.statistics.stability import bootstrap_weights, circuit_agreement, weighted_sums
from xaikit.testing import planted_tower


@pytest.fixture(scope="module")
def found() -> Stability:
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(60))
    options = StabilityOptions(
        num_clusters=(3, 7, 12), resamples=10, rank="contrast", top_k=4, sample_tokens=0
    )
    return stability(run, options)


def test_the_true_number_of_groups_is_found_again_by_every_seed(found):
    few, true, many = found.rows
    assert true["ari"] == pytest.approx(1.0)
    assert true["ari_halves"] == pytest.approx(1.0)
    # There are seven gate patterns: more clusters stay empty.
    assert many["clusters_used"] == true["clusters_used"] == 7
    assert true["inertia"] == pytest.approx(0.0, abs=1e-6)
    assert few["inertia"] > 1.0
    for where in ("token", "cluster"):
        assert true[where]["r2_added"] > few[where]["r2_added"] + 0.02
        assert true[where]["jaccard_seeds"] == pytest.approx(1.0)
        assert true[where]["jaccard_halves"] == pytest.approx(1.0, abs=0.5)


def test_guided_clusters_do_not_depend_on_seeds_and_halves_leave_the_prefix_out(found):
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(40))
    options = StabilityOptions(
        num_clusters=(7,), resamples=2, seeds=2, rank="contrast", top_k=4, method="guided"
    )
    (row,) = stability(run, options).rows
    assert row["ari"] == 1.0
    assert row["ari_halves"] > 0.5
    for where in ("token", "cluster"):
        assert row[where]["jaccard_seeds"] == row[where]["jaccard_seeds_patches"] == 1.0
        assert 0.0 <= row[where]["jaccard_halves_patches"] <= 1.0


def test_planted_circuits_hold_on_resampled_images(found):
    true = found.rows[1]["token"]
    assert true["jaccard"] == pytest.approx(1.0, abs=0.1)
    assert true["survival"] == pytest.approx(1.0, abs=0.1)
    assert true["jaccard_chance"] < 0.05


def test_the_sweep_is_written_and_read(found, tmp_path):
    found.save(tmp_path / "stability.json")
    assert Stability.load(tmp_path / "stability.json") == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": "zscore"}, "rank=zscore: expected one of weight, contrast, energy"),
        ({"seeds": 0}, "seeds=0: expected 1 or more"),
        ({"resamples": 0}, "resamples=0"),
        ({"num_clusters": ()}, "num_clusters"),
        ({"num_clusters": (8, 0)}, "num_clusters=0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        checked(StabilityOptions(**options))


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, Stability, list[dict], list[Features], dict[str, list]]:
    """A sweep of one number on noise: its logits, and what was clustered and resampled."""
    calls: list[dict] = []
    clustered: list[Features] = []
    told: dict[str, list] = {"drawn": [], "means": []}

    def recorded(trace, **given):
        calls.append(given)
        clustered.append(cluster(trace, **given))
        return clustered[-1]

    def weights(*given):
        told["drawn"].append(given)
        return bootstrap_weights(*given)

    def summed(*given):
        told["means"].append(given[2])
        return weighted_sums(*given)

    logits = np.random.default_rng(0).normal(size=(24, 2, 6, 6))
    options = StabilityOptions(
        num_clusters=(4,), seeds=3, resamples=4, top_k=9, seed=5, holdout=0.25
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "cluster", recorded)
        patch.setattr(module, "bootstrap_weights", weights)
        patch.setattr(module, "weighted_sums", summed)
        made = stability(make_trace(torch.from_numpy(logits)), options)
    return logits.astype(np.float32).astype(float), made, calls, clustered, told


def test_seeds_share_a_split_and_halves_are_two(small) -> None:
    _, made, calls, clustered, told = small
    assert [(each["start_seed"], each["half"]) for each in calls] == [
        *((start, None) for start in (5, 6, 7)),
        *((5, half) for half in (0, 1)),
    ]
    assert {each["seed"] for each in calls} == {5}
    assert {tuple(each.heldout) for each in clustered} == {tuple(clustered[0].heldout)}
    assert (made.num_images, made.num_test_images) == (18, 6)
    assert told["drawn"] == [(18, 4, 5)] * 2
    assert (made.seeds, made.resamples, made.holdout, made.seed) == (3, 4, 0.25, 5)


def test_halves_and_seeds_agree_as_their_slow_definitions_say(small) -> None:
    logits, made, _, clustered, _ = small
    first, second, third, one, other = clustered
    (row,) = made.rows
    discovery = sorted(first.discovery)

    def patches(features):
        return features.labels[sorted(features.heldout)][:, 1:].numpy().ravel()

    pairs = [(first, second), (first, third), (second, third)]
    found = [adjusted_rand_index(patches(a), patches(b)) for a, b in pairs]
    assert row["ari"] == pytest.approx(np.mean(found))
    assert row["ari_halves"] == pytest.approx(adjusted_rand_index(patches(one), patches(other)))
    for where in ("token", "cluster"):

        def best(features, match, kept, where=where):
            labels = features.labels[discovery].numpy()
            scores = np.abs(slow.cell_means(logits[discovery], labels, 4, where))[match]
            support = slow.support(labels, 4, where)[match]
            if where == "cluster":
                scores, support = scores[:, :, match], support[:, match]
            allowed = np.broadcast_to(support[:, None] > 0, scores.shape) & kept
            order = np.argsort(-scores.ravel(), kind="stable")
            return set(order[allowed.ravel()[order]][:9].tolist())

        def agreed(a, b, kept, best=best):
            match = match_clusters(a.labels.numpy().ravel(), b.labels.numpy().ravel(), 4)
            left, right = best(a, np.arange(4), kept), best(b, match, kept)
            return len(left & right) / len(left | right)

        shape = (4, 2, 4 if where == "cluster" else 6)
        every, between = np.ones(shape, bool), np.ones(shape, bool)
        # The class token is the last cluster and the first token.
        between[3] = False
        between[:, :, 3 if where == "cluster" else 0] = False
        for name, kept in (("", every), ("_patches", between)):
            expected = agreed(one, other, kept)
            assert row[where][f"jaccard_halves{name}"] == pytest.approx(expected)
            expected = np.mean([agreed(first, each, kept) for each in (second, third)])
            assert row[where][f"jaccard_seeds{name}"] == pytest.approx(expected)
        assert row[where]["jaccard_halves"] != row[where]["jaccard_halves_patches"]


def test_what_clusters_add_is_of_the_held_out_images_and_means_are_over_seeds(small) -> None:
    logits, made, _, clustered, told = small
    seeds, (row,) = clustered[:3], made.rows
    train, test = (sorted(images) for images in (seeds[0].discovery, seeds[0].heldout))
    for where in ("token", "cluster"):
        scores = [
            slow.all_r2(
                *((logits[part], each.labels[part].numpy()) for part in (train, test)), 4, where
            )
            for each in seeds
        ]
        added = [each["r2_position_cluster"] - each["r2_position"] for each in scores]
        assert row[where]["r2_added"] == pytest.approx(np.mean(added))
        assert row[where]["r2_added_sd"] == pytest.approx(np.std(added, ddof=1))
    assert row["inertia"] == pytest.approx(np.mean([each.inertia for each in seeds]))
    # Energy is about the mean of the discovery images.
    for mean in told["means"]:
        np.testing.assert_allclose(mean, slow.position_mean(logits[train]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_circuits_of_resamples_are_those_of_the_images_they_drew(where, monkeypatch) -> None:
    """By the ranking that was asked for, and without the clusters that a resample lost."""
    A, c = slow.random_case(0, B=9, K=4, empty=2)
    c[c == 3], c[4, 1:3] = 0, 3
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), 4, [0, 7])
    images, told = np.array(features.discovery), []

    def compared(*given):
        told.append((given, circuit_agreement(*given)))
        return told[-1][1]

    monkeypatch.setattr(module, "circuit_agreement", compared)
    options = StabilityOptions(rank="contrast", top_k=12, resamples=6, seed=5)
    mean = torch.from_numpy(slow.position_mean(A[images])).float()
    row = module._circuits(trace, [features], [features, features], mean, where, options)

    def best(counts):
        drawn = np.repeat(images, counts)
        scores = np.abs(slow.contrast(A[drawn], c[drawn], 4, where))
        there = np.broadcast_to(slow.support(c[drawn], 4, where)[:, None] > 0, scores.shape)
        order = np.argsort(-scores.ravel(), kind="stable")
        return set(order[there.ravel()[order]][:12].tolist()), int(there.sum())

    (((reference, circuits, candidates), agreed),) = told
    assert (set(reference.tolist()), candidates) == best(np.ones(7, int))
    weights = bootstrap_weights(7, 6, 5).long().numpy()
    assert [set(each.tolist()) for each in circuits] == [best(each)[0] for each in weights]
    assert 0 in weights[:, images.tolist().index(4)]
    for name in ("jaccard", "jaccard_sd", "jaccard_pairwise", "jaccard_chance"):
        assert row[name] == getattr(agreed, name)
    assert row["survival"] == pytest.approx(float(agreed.survival.mean()))
    assert row["jaccard_seeds"] is row["jaccard_seeds_patches"] is None


def test_clusters_are_learnt_with_the_options_of_the_sweep(monkeypatch) -> None:
    asked: dict = {}
    monkeypatch.setattr(module, "cluster", lambda trace, **more: asked.update(more, trace=trace))
    options = StabilityOptions(
        sample_tokens=9, holdout=0.25, method="guided", prefix="mixed", seed=3
    )
    module._clustered("a trace", 7, options, 5, 1)  # type: ignore[arg-type]
    assert asked == {
        "trace": "a trace",
        "num_clusters": 7,
        "sample_tokens": 9,
        "seed": 3,
        "start_seed": 5,
        "half": 1,
        "holdout": 0.25,
        "method": "guided",
        "prefix": "mixed",
    }
