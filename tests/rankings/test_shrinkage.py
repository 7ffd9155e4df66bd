"""Scores drawn toward their margins, against loops and against what they estimate."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr

from xaikit.rankings.shrinkage import toward_margins


def made(seed, shape=(8, 2, 40), rest=0.2, error=0.3):
    """What is true, what is found, and the error variances of that."""
    rng = np.random.default_rng(seed)
    k, h, d = shape
    logs = rng.normal(size=(k, h, 1)) + rng.normal(size=(1, h, d))
    true = np.exp(logs + rest * rng.normal(size=shape))
    spread = error * rng.uniform(0.2, 1.0, shape)
    found = true * np.exp(spread * rng.normal(size=shape))
    return true, found, (spread * found) ** 2


def defined(scores, errors):
    """The same, edge by edge, its margins from least squares."""
    out = scores.copy()
    k, h, d = scores.shape
    for head in range(h):
        cells = [(i, j) for i in range(k) for j in range(d) if scores[i, head, j] > 0]
        design = np.zeros((len(cells), k + d))
        for row, (i, j) in enumerate(cells):
            design[row, i] = design[row, k + j] = 1
        x = np.log([scores[i, head, j] for i, j in cells])
        noise = np.array([errors[i, head, j] / scores[i, head, j] ** 2 for i, j in cells])
        fitted = design @ np.linalg.lstsq(design, x, rcond=None)[0]
        free = len(cells) - np.linalg.matrix_rank(design)
        real = max(((x - fitted) ** 2).sum() / free - noise.mean(), 0.0)
        for (i, j), value, fit, error in zip(cells, x, fitted, noise, strict=True):
            out[i, head, j] = np.exp(fit + real / (real + error) * (value - fit))
    return out


def shrunk(scores, errors):
    return toward_margins(torch.from_numpy(scores), torch.from_numpy(errors)).numpy()


def test_scores_are_drawn_as_defined():
    _, found, errors = made(0)
    found[2, 0, 5] = found[3, 1, 7] = 0.0
    np.testing.assert_allclose(shrunk(found, errors), defined(found, errors), rtol=1e-9)


def test_scores_of_nothing_stay_nothing_and_exact_ones_stay_to_the_last_bit():
    _, found, errors = made(1)
    found[0] = 0.0
    errors[4] = 0.0
    ours = shrunk(found, errors)
    assert (ours[0] == 0).all()
    np.testing.assert_array_equal(ours[4], found[4])
    np.testing.assert_array_equal(shrunk(found, np.zeros_like(found)), found)


def test_rounding_stays_as_it_is_and_no_other_score_learns_from_it():
    _, found, errors = made(1)
    without = found.copy()
    found[2, 0, 5], without[2, 0, 5] = 1e-7 * found[:, 0].max(), 0.0
    ours, expected = shrunk(found, errors), shrunk(without, errors)
    assert ours[2, 0, 5] == found[2, 0, 5]
    expected[2, 0, 5] = found[2, 0, 5]
    np.testing.assert_array_equal(ours, expected)


def test_heads_do_not_learn_from_one_another_however_weak_they_are():
    _, found, errors = made(1)
    weak = np.array([1.0, 1e-7])[None, :, None]
    np.testing.assert_allclose(
        shrunk(found * weak, errors * weak**2), shrunk(found, errors) * weak, rtol=1e-9
    )


def test_clusters_and_destinations_without_a_score_are_no_margins():
    _, found, errors = made(1)
    found[0], found[:, 1, 3:20] = 0.0, 0.0
    np.testing.assert_allclose(shrunk(found, errors), defined(found, errors), rtol=1e-6)


def test_what_error_alone_explains_is_all_drawn_to_the_margins():
    _, found, errors = made(1, rest=0.0)
    np.testing.assert_allclose(shrunk(found, 9 * errors), defined(found, 9 * errors), rtol=1e-9)


def test_a_table_of_one_row_has_no_margins_to_learn_from():
    _, found, errors = made(2, shape=(1, 2, 40))
    np.testing.assert_array_equal(shrunk(found, errors), found)


def test_edges_are_ranked_more_like_the_truth():
    gains = []
    for seed in range(3, 8):
        true, found, errors = made(seed)
        ours = spearmanr(shrunk(found, errors).ravel(), true.ravel()).statistic
        gains.append(ours - spearmanr(found.ravel(), true.ravel()).statistic)
    assert min(gains) > 0.0


def test_large_real_differences_are_kept():
    _, found, errors = made(9, rest=2.0, error=0.05)
    np.testing.assert_allclose(shrunk(found, errors), found, rtol=0.02)
