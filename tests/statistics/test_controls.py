"""Many clusterings in one pass against the definitions, and what controls must come out as."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_trace
from edge_parts import part_of

from xaikit.statistics import controls
from xaikit.statistics.controls import (
    DESTINATIONS,
    control_scores,
    fit_controls,
    image_part,
    label_scores,
)
from xaikit.statistics.permutations import image_permutations
from xaikit.statistics.relabel import position_clusters

K = 4
TRAIN, TEST = [0, 2, 3, 6, 7], [1, 4, 5]


def parts(A, c):
    trace = make_trace(torch.from_numpy(A))
    labels = torch.from_numpy(c)
    return [image_part(trace, labels, images) for images in (TRAIN, TEST)]


def test_scores_of_several_clusterings_are_the_definitions():
    A, c = slow.random_case(3, B=8)
    # Far from zero, float32 products of raw logits would be off by far more than this.
    A = (A + 50.0).astype(np.float32).astype(float)
    other = np.random.default_rng(1).integers(0, 3, size=c.shape)
    maps = [(torch.from_numpy(each[TRAIN]), torch.from_numpy(each[TEST])) for each in (c, other)]
    found = label_scores(*parts(A, c), maps, [K, 3], DESTINATIONS)
    for where in DESTINATIONS:
        for at, (each, k) in enumerate(((c, K), (other, 3))):
            expected = slow.all_r2((A[TRAIN], each[TRAIN]), (A[TEST], each[TEST]), k, where)
            expected["added"] = expected["r2_position_cluster"] - expected["r2_position"]
            assert found[where][at] == pytest.approx(expected, abs=1e-6)


def case_with_an_effect(rng, images=60, tokens=7):
    """Label 1 raises the logits towards token 3; labels also depend on position."""
    position = rng.normal(size=(2, tokens, tokens))
    labels = (rng.random((images, tokens)) < np.linspace(0.2, 0.8, tokens)).astype(np.int64)
    logits = position + 0.3 * rng.normal(size=(images, 2, tokens, tokens))
    logits[..., 3] += 2.0 * labels[:, None]
    return logits, labels


def test_controls_explain_nothing_beyond_position_where_clusters_do(rng):
    A, c = case_with_an_effect(rng)
    trace = make_trace(torch.from_numpy(A))
    train, test = (
        image_part(trace, torch.from_numpy(c), images)
        for images in (range(0, 60, 2), range(1, 60, 2))
    )
    real = label_scores(train, test, [(train.labels, test.labels)], [2], ["token"])["token"][0]
    found = control_scores(train, test, 2, DESTINATIONS, prefix=1, grid=[2, 3], draws=10, seed=0)
    assert real["added"] > 0.05
    for where in DESTINATIONS:
        own = found[where]
        assert own["shuffled_draws"] == 10
        assert abs(own["shuffled_added"]) < 0.01
        assert 0 < own["shuffled_added_sd"] < 0.01
        assert own["position_added"] == pytest.approx(0.0, abs=1e-9)
        assert own["position_r2"] > 0.005


def test_shuffles_follow_from_the_seed_and_are_told_by_their_mean_and_spread(rng, monkeypatch):
    A, c = case_with_an_effect(rng)
    trace = make_trace(torch.from_numpy(A))
    part = image_part(trace, torch.from_numpy(c), range(60))
    seen = []
    scores = controls.label_scores

    def told(*given):
        seen.append(scores(*given))
        return seen[-1]

    monkeypatch.setattr(controls, "label_scores", told)
    given = {"prefix": 1, "grid": [2, 3], "draws": 3}
    one, same, other = (
        control_scores(part, part, 2, ["token"], **given, seed=seed)["token"] for seed in (3, 3, 4)
    )
    assert one == same
    assert one["shuffled_added"] != other["shuffled_added"]
    assert one["position_r2"] == pytest.approx(other["position_r2"])
    *shuffled, position = seen[0]["token"]
    added, raw = ([each[name] for each in shuffled] for name in ("added", "r2"))
    assert one["shuffled_added"] == pytest.approx(np.mean(added))
    assert one["shuffled_added_sd"] == pytest.approx(np.std(added, ddof=1))
    assert one["shuffled_r2"] == pytest.approx(np.mean(raw))
    assert one["position_r2"] == position["r2"]


@pytest.mark.parametrize("where", DESTINATIONS)
def test_a_fit_s_controls_are_learnt_on_one_part_and_scored_on_the_other(where):
    """Labels shuffled in both, and clusters of positions, by the slow definitions."""
    A, c = slow.random_case(5, B=8, N=5)
    sides = [(A[TRAIN], c[TRAIN]), (A[TEST], c[TEST])]
    mean = torch.from_numpy(A[TRAIN]).mean(0)
    train, test = (part_of(*each, K, where, mean=mean, shuffles=3, seed=2) for each in sides)
    found = fit_controls(train, test, 1, [2, 2], 7)
    orders = [image_permutations(len(own), 3, 3) for own, _ in sides]
    shuffled = [
        slow.all_r2(
            *((own, maps[order[draw]]) for (own, maps), order in zip(sides, orders, strict=True)),
            K,
            where,
        )
        for draw in range(3)
    ]
    added = [each["r2_position_cluster"] - each["r2_position"] for each in shuffled]
    assert found["shuffled_draws"] == 3
    assert found["shuffled_added"] == pytest.approx(np.mean(added), abs=1e-6)
    assert found["shuffled_added_sd"] == pytest.approx(np.std(added, ddof=1), abs=1e-6)
    assert found["shuffled_r2"] == pytest.approx(np.mean([e["r2"] for e in shuffled]), abs=1e-6)
    places = position_clusters(5, 1, [2, 2], K, 7).numpy()
    at = [(own, np.broadcast_to(places, maps.shape)) for own, maps in sides]
    expected = slow.all_r2(*at, K, where)
    assert found["position_r2"] == pytest.approx(expected["r2"], abs=1e-6)
    assert found["position_added"] == pytest.approx(0.0, abs=1e-6)


def test_shuffled_labels_keep_sizes_and_positions(rng):
    A, c = case_with_an_effect(rng)
    shuffled = c[rng.permutation(60)]
    # In sample, shuffling changes only which image has which map: the raw fit of position stays.
    raw = [slow.all_r2((A, each), (A, each), 2, "token")["r2"] for each in (c, shuffled)]
    trace = make_trace(torch.from_numpy(A))
    part = image_part(trace, torch.from_numpy(c), range(60))
    found = control_scores(part, part, 2, ["token"], prefix=1, grid=[2, 3], draws=20, seed=3)
    assert found["token"]["shuffled_r2"] == pytest.approx(raw[1], abs=0.02)
    assert found["token"]["shuffled_r2"] < raw[0]
    assert 0 < found["token"]["shuffled_added"] < 0.01


@pytest.mark.parametrize(("tokens", "prefix", "grid"), [(17, 1, [4, 4]), (10, 2, [])])
def test_position_clusters_are_compact_and_leave_prefix_tokens_alone(tokens, prefix, grid):
    found = position_clusters(tokens, prefix, grid, prefix + 4, seed=0)
    assert sorted(found.unique().tolist()) == list(range(prefix + 4))
    for token in range(prefix):
        assert (found == found[token]).sum() == 1
    if grid:
        corners = found[prefix:].reshape(grid)
        assert len({int(corners[i, j]) for i in (0, 3) for j in (0, 3)}) == 4


def test_more_clusters_than_positions_leave_clusters_empty():
    assert sorted(position_clusters(5, 1, [2, 2], 16, seed=0).tolist()) == list(range(5))
