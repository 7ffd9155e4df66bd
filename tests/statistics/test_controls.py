"""Many clusterings in one pass against the definitions, and what controls must come out as."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import make_trace

from xaikit.statistics.controls import DESTINATIONS, control_scores, image_part, label_scores
from xaikit.statistics.relabel import position_clusters

K = 4
TRAIN, TEST = [0, 2, 3, 6, 7], [1, 4, 5]


def parts(A, c):
    trace = make_trace(torch.from_numpy(A))
    labels = torch.from_numpy(c)
    return [image_part(trace, labels, images, K, A.shape[1]) for images in (TRAIN, TEST)]


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
        image_part(trace, torch.from_numpy(c), images, 2, 2)
        for images in (range(0, 60, 2), range(1, 60, 2))
    )
    own = label_scores(train, test, [(train.labels, test.labels)], [2], ["token"])["token"][0]
    found = control_scores(train, test, 2, DESTINATIONS, prefix=1, grid=[2, 3], draws=10, seed=0)
    assert own["added"] > 0.05
    for where in DESTINATIONS:
        controls = found[where]
        assert controls["shuffled_draws"] == 10
        assert abs(controls["shuffled_added"]) < 0.01
        assert 0 < controls["shuffled_added_sd"] < 0.01
        assert controls["position_added"] == pytest.approx(0.0, abs=1e-9)
        assert controls["position_r2"] > 0.005


def test_shuffled_labels_keep_sizes_and_positions(rng):
    A, c = case_with_an_effect(rng)
    shuffled = c[rng.permutation(60)]
    # In sample, shuffling changes only which image has which map: the raw fit of position stays.
    raw = [slow.all_r2((A, each), (A, each), 2, "token")["r2"] for each in (c, shuffled)]
    trace = make_trace(torch.from_numpy(A))
    part = image_part(trace, torch.from_numpy(c), range(60), 2, 2)
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
