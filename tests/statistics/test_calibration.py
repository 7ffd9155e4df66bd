"""Edge p-values on confounded noise: whole images may be exchanged, single tokens may not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_features, make_trace
from null_data import LEVELS, fitted, null_data, plant

from xaikit.stages.fit import fit
from xaikit.statistics.multiple import benjamini_hochberg, two_sided_normal

B, H, N, K = 48, 2, 8, 3
TRIALS = 60
TESTED = (0, 0, 3)


def confounded_noise(rng):
    """Logits with position and image effects, and labels that follow positions, not logits."""
    position = 2.0 * rng.normal(size=(H, N, N))
    image = rng.normal(size=(B, H, 1, N))
    logits = position + image + 0.5 * rng.normal(size=(B, H, N, N))
    favourite = rng.integers(0, K, size=N)
    busy = rng.integers(0, K, size=(B, 1))
    draw = rng.random(size=(B, N))
    labels = np.where(draw < 0.4, favourite, rng.integers(0, K, size=(B, N)))
    return logits, np.where(draw > 0.6, busy, labels)


def token_permutation_pvalue(logits, labels, rng, draws=99):
    """The foil: the same statistic with tokens permuted freely, which ignores both confounds."""
    k, h, j = TESTED
    values, flat = logits[:, h, :, j].ravel(), labels.ravel() == k
    centre = values.mean()

    def distance(members):
        return abs(values[members].mean() - centre)

    null = [distance(rng.permutation(flat)) for _ in range(draws)]
    return (1 + sum(each >= distance(flat) for each in null)) / (1 + draws)


def test_image_permutation_holds_its_level_and_token_permutation_does_not():
    rng = np.random.default_rng(20)
    exact, foil = [], []
    for _ in range(TRIALS):
        logits, labels = confounded_noise(rng)
        trace = make_trace(torch.from_numpy(logits))
        found = fit(
            trace, make_features(trace, torch.from_numpy(labels), K), num_permutations=1
        ).edge_pvalues
        exact.append(found[:, :, TESTED[2]].numpy())
        foil.append(token_permutation_pvalue(logits, labels, rng))
    rejected = (np.array(exact) <= 0.05).mean((1, 2))
    # Clusters and heads of one trial share images: the trial is the independent unit.
    error = rejected.std() / np.sqrt(TRIALS)
    assert abs(rejected.mean() - 0.05) < 3 * max(error, 0.01)
    assert (np.array(foil) <= 0.05).mean() > 0.05 + 4 * np.sqrt(0.05 * 0.95 / TRIALS)


def tail_rates(kind, destination, sets):
    """Sizes at `LEVELS` over their nominal ones, and alarms at q <= .05, in use and normal."""
    counts, alarms, tests = np.zeros((2, len(LEVELS))), np.zeros(2), 0
    for seed in range(sets):
        found = fitted(*null_data(seed, 64, kind, heads=2), destination)
        tested = found.edge_null_methods != 0
        tests += int(tested.sum())
        normal = torch.where(tested, two_sided_normal(found.edge_zscores), 1.0)
        for at, pvalues in enumerate((found.edge_pvalues, normal)):
            counts[at] += [int((pvalues <= level).sum()) for level in LEVELS]
            alarms[at] += bool((benjamini_hochberg(pvalues) <= 0.05).any())
    return counts / tests / np.array(LEVELS), alarms


@pytest.mark.parametrize("kind", ["key", "entry"])
def test_rare_clusters_and_heavy_tails_make_no_false_discoveries(kind):
    sets = 24
    (used, normal), (alarms, normal_alarms) = tail_rates(kind, "token", sets)
    # About 52,000 edges: 5 expected at 1e-4.
    assert used[0] == pytest.approx(1.0, abs=0.1)
    assert used[1] == pytest.approx(1.0, abs=0.15)
    assert 0.5 < used[2] < 1.5
    assert used[3] < 2.5
    assert alarms <= 3
    assert normal[2] > 1.7
    assert normal[3] > 3
    assert normal_alarms >= 8


def test_edges_between_rare_clusters_make_no_false_discoveries():
    (used, normal), (alarms, normal_alarms) = tail_rates("entry", "cluster", 6)
    assert used[0] == pytest.approx(1.0, abs=0.15)
    assert (used[1:] < 1.3).all()
    assert alarms == 0
    assert normal[3] > 5
    assert normal_alarms == 6


def test_planted_edges_of_common_clusters_stay_far_below_any_threshold():
    logits, labels = null_data(3, 128, "key", heads=2)
    common, rare = [(0, 0, 3), (1, 1, 5)], [(30, 0, 9)]
    changed = plant(plant(logits, labels, common, 4.0), labels, rare, 10.0)
    found = fitted(changed, labels)
    for edge in common:
        assert found.edge_pvalues[edge] < 1e-12
        assert found.edge_qvalues[edge] < 1e-9
    assert found.edge_pvalues[rare[0]] < 1e-4
    assert found.edge_qvalues[rare[0]] < 0.05
