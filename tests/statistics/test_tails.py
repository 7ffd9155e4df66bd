"""p-values of edges far out in the tails, against every permutation and on null data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from xaikit.statistics.block_moments import BlockMoments
from xaikit.statistics.multiple import two_sided_normal
from xaikit.statistics.tails import METHODS, NullShape, tail_pvalues


def values_of(rng, images, active, heavy, edges):
    """``f(b', b)`` of `edges` edges whose clusters are in `active` of a block's images."""
    draw = rng.standard_t(3, size=(images, edges, images)) if heavy else None
    values = rng.normal(size=(images, edges, images)) if draw is None else draw
    values[active:] = 0
    values = values - values.mean(0, keepdims=True)
    return values - values.mean(2, keepdims=True)


def null_shape(blocks, observed, log_arrangements):
    """Shape of the null of edges from their values in every block; `observed` is the data."""
    total = {}
    for values in blocks:
        moments = BlockMoments(len(values), values.shape[1], 1)
        moments.add(torch.from_numpy(values).float()[..., None])
        for name, part in moments.sums("cpu").items():
            total[name] = total.get(name, 0) + part[:, 0]
    scores = torch.as_tensor(observed) / total["variance"].sqrt()
    arrangements = torch.full_like(scores, log_arrangements)
    return NullShape(scores=scores, log_arrangements=arrangements, **total)


def permuted(values, orders):
    """Sums of a block's edges under permutations ``[order, edge]``."""
    return sum(values[orders[:, b], :, b] for b in range(len(values)))


def exact_tail(blocks, thresholds):
    """``P(|T| >= t)`` over all permutations within blocks of six."""
    orders = np.array(list(itertools.permutations(range(6))))
    first, second = (permuted(values, orders) for values in blocks)
    found = []
    for edge, t in enumerate(thresholds):
        other = np.sort(second[:, edge])
        slack = 1e-9 * abs(t)
        above = len(other) - np.searchsorted(other, t - slack - first[:, edge])
        below = np.searchsorted(other, -t + slack - first[:, edge], side="right")
        found.append((above + below).sum() / len(orders) ** 2)
    return np.array(found)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("active", [2, 3, 6])
def test_tails_are_those_of_all_permutations_of_two_blocks(heavy, active):
    rng = np.random.default_rng([active, heavy])
    blocks = [values_of(rng, 6, active, heavy, 150) for _ in range(2)]
    deviation = np.sqrt(sum((values**2).sum((0, 2)) / 5 for values in blocks))
    thresholds = deviation * np.tile([1.5, 2.0, 2.5, 3.0, 3.5], 30)
    exact = exact_tail(blocks, thresholds)
    ways = 2 * (math.lgamma(7) - math.lgamma(7 - active))
    shape = null_shape(blocks, thresholds, ways)
    found = tail_pvalues(shape.scores, shape)[0].numpy()
    reachable = exact > 0
    assert reachable.sum() > 100
    ratio = found[reachable] / exact[reachable]
    assert ratio.min() > 0.25
    assert 0.8 < np.median(ratio[exact[reachable] > 0.01]) < 1.3
    # What no permutation reaches is not given away: it has the p-value of the rarest.
    assert (found[~reachable] <= 0.05).all()


def test_one_image_cannot_be_significant():
    rng = np.random.default_rng(0)
    blocks = [values_of(rng, 32, 1, True, 200), np.zeros((32, 200, 32))]
    observed = np.abs(blocks[0][0]).max(1)
    shape = null_shape(blocks, observed, math.log(32))
    found, methods = tail_pvalues(shape.scores, shape)
    assert two_sided_normal(shape.scores).min() < 1e-5
    assert float(found.min()) >= 1 / 32
    assert METHODS[int(methods[found == found.min()][0])] == "arrangements"


def simple_shape(z, fourth=0.0, sixth=0.0, eighth=0.0, ways=1e3):
    z = torch.as_tensor(z, dtype=torch.float64).reshape(-1)
    full = [torch.full_like(z, value) for value in (1.0, fourth, sixth, eighth, ways)]
    names = ("variance", "fourth", "sixth", "eighth", "log_arrangements")
    return NullShape(scores=z, **dict(zip(names, full, strict=True)))


def test_common_edges_keep_the_normal_tail_however_strong():
    z = torch.tensor([0.5, 3.0, 8.0, 30.0], dtype=torch.float64)
    found, methods = tail_pvalues(z, simple_shape(z, fourth=0.001))
    torch.testing.assert_close(found, torch.special.erfc(z / math.sqrt(2)), rtol=1e-12, atol=0)
    assert [METHODS[code] for code in methods.tolist()] == ["normal"] * 4


def test_edges_that_cannot_be_tested_have_p_one():
    z = torch.tensor([0.0, 2.0], dtype=torch.float64)
    found, methods = tail_pvalues(z, simple_shape(z))
    assert found[0] == 1.0
    assert found[1] < 0.05
    assert [METHODS[code] for code in methods.tolist()] == ["not testable", "normal"]


def test_pvalues_fall_as_scores_grow_and_are_never_zero():
    z = torch.linspace(0.01, 60.0, 4000, dtype=torch.float64)
    for cumulants in [
        (0, 0, 0),
        (-0.15, 0.01, 0.001),
        (0.3, 1.0, 5.0),
        (0.05, -2.0, 90.0),
        (20.0, 900.0, 5e4),
        (-1.2, 6.0, -90.0),
        (1.0, -1e6, 1e9),
    ]:
        found, _ = tail_pvalues(z, simple_shape(z, *cumulants))
        assert torch.isfinite(found).all()
        assert (found > 0).all()
        assert (found <= 1).all()
        assert (found.diff() <= 1e-9).all()


def test_a_null_that_is_not_normal_has_the_tail_of_its_moments():
    """Laplace's, of which the normal tail at 4 is a fiftieth."""
    z = torch.tensor([4.0, 5.0], dtype=torch.float64)
    found, methods = tail_pvalues(z, simple_shape(z, 3.0, 30.0, 630.0))
    torch.testing.assert_close(found, torch.exp(-math.sqrt(2.0) * z), rtol=0.1, atol=0)
    assert [METHODS[code] for code in methods.tolist()] == ["moments"] * 2


def test_order_of_summation_does_not_show():
    rng = np.random.default_rng(7)
    blocks = [values_of(rng, 8, 8, True, 500) for _ in range(7)]
    observed = rng.normal(size=500) * 8
    one = null_shape(blocks, observed, 100.0)
    other = null_shape(blocks[::-1], observed, 100.0)
    assert not torch.equal(one.fourth, other.fourth)
    # The variance and the data are added up exactly elsewhere.
    same = {"variance": one.variance, "scores": one.scores}
    other = NullShape(**(other.__dict__ | same))
    found, again = (tail_pvalues(one.scores, shape)[0] for shape in (one, other))
    assert torch.equal(found, again)
