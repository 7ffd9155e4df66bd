"""Edge p-values on confounded noise: whole images may be exchanged, single tokens may not."""

from __future__ import annotations

import numpy as np
import torch
from conftest import make_features, make_trace

from xaikit.stages.fit import fit

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
