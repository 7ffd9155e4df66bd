"""Cumulants and power sums of one block against all its permutations, and against loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from xaikit.statistics import block_moments
from xaikit.statistics.block_moments import BlockMoments, Side, log_arrangements, power_of_two


def centred_values(seed, images, clusters=3, width=2):
    """``f(b', b)`` of every edge, ``[map, cluster, image, width]``, with far-out values."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, size=(images, clusters, images, width))
    values -= values.mean(0, keepdims=True)
    return values - values.mean(2, keepdims=True)


def all_sums(values):
    """The edge's sum under every permutation of label maps."""
    images = len(values)
    orders = itertools.permutations(range(images))
    return np.array([sum(values[order[b], b] for b in range(images)) for order in orders])


def apart(f, *powers):
    """Sum of products of powers of values in distinct rows and distinct columns."""
    places = list(itertools.permutations(range(len(f)), len(powers)))
    return sum(
        math.prod(f[i, j] ** power for i, j, power in zip(rows, columns, powers, strict=True))
        for rows in places
        for columns in places
    )


@pytest.mark.parametrize("product", [False, True])
def test_powers_are_summed_over_distinct_rows_and_columns(product):
    """All of them exactly where f is a product, those of two values for any f."""
    rng = np.random.default_rng(3)
    f = rng.standard_t(3, size=(5, 5))
    if product:
        f = np.outer(rng.standard_t(3, size=5), rng.normal(size=5))
    powers = tuple(torch.tensor((f**power).sum()) for power in (2, 4, 6, 8))
    rows, columns = (
        Side.of(*(torch.tensor((f**power).sum(axis)) for power in (2, 4, 6)), axis=0)
        for axis in (1, 0)
    )
    for function, orders in {
        block_moments._apart22: (2, 2),
        block_moments._apart42: (4, 2),
        block_moments._apart222: (2, 2, 2),
        block_moments._apart422: (4, 2, 2),
        block_moments._apart2222: (2, 2, 2, 2),
    }.items():
        if product or len(orders) == 2:
            found = float(function(powers, rows, columns))
            assert found == pytest.approx(apart(f, *orders), rel=1e-9)


@pytest.mark.parametrize("active", [4, 32])
def test_moments_of_a_block_are_those_of_its_permutations(active):
    """Clusters in few and in all images, far-out images: against 60,000 permutations."""
    rng = np.random.default_rng(active)
    images, edges, draws = 32, 6, 60_000
    values = rng.normal(size=(images, edges, images)) * rng.standard_t(5, size=(edges, images))
    values[active:] = 0.0
    values -= values.mean(0, keepdims=True)
    values -= values.mean(2, keepdims=True)
    orders = rng.permuted(np.tile(np.arange(images), (draws, 1)), axis=1)
    sums = sum(values[orders[:, b], :, b] for b in range(images))
    moments = BlockMoments(images, edges, 1)
    moments.add(torch.from_numpy(values).float()[..., None])
    found = {name: part[:, 0].numpy() for name, part in moments.sums("cpu").items()}
    np.testing.assert_allclose(found["variance"], (sums**2).mean(0), rtol=0.03)
    k4, k6, k8 = (
        found[n] / found["variance"] ** q for n, q in (("fourth", 2), ("sixth", 3), ("eighth", 4))
    )
    score = sums / sums.std(0)
    np.testing.assert_allclose(3 + k4, (score**4).mean(0), rtol=0.08)
    six = (15 + 15 * k4 + k6) / (score**6).mean(0)
    eight = (105 + 210 * k4 + 35 * k4**2 + 28 * k6 + k8) / (score**8).mean(0)
    assert np.median(six) == pytest.approx(1.0, abs=0.04)
    assert np.median(eight) == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(six, 1.0, atol=0.2)
    np.testing.assert_allclose(eight, 1.0, atol=0.6)


@pytest.mark.parametrize("product", [False, True])
def test_fourth_moment_of_a_small_block_counts_values_that_enter_once(product):
    """All 5,040 permutations of seven images: without those terms it is a tenth too small."""
    rng, images, edges = np.random.default_rng(product), 7, 40
    shape = (images, edges, images)
    values = rng.standard_t(3, shape)
    if product:
        few = np.arange(images)[:, None, None] < 2
        values = few * rng.standard_t(3, (1, edges, images))
    values = values - values.mean(0, keepdims=True)
    values = values - values.mean(2, keepdims=True)
    orders = np.array(list(itertools.permutations(range(images))))
    sums = sum(values[orders[:, b], :, b] for b in range(images))
    moments = BlockMoments(images, edges, 1)
    moments.add(torch.from_numpy(values).float()[..., None])
    found = {name: part[:, 0].numpy() for name, part in moments.sums("cpu").items()}
    np.testing.assert_allclose(found["variance"], (sums**2).mean(0), rtol=1e-4)
    ratio = (found["fourth"] + 3 * found["variance"] ** 2) / (sums**4).mean(0)
    np.testing.assert_allclose(ratio, 1.0, atol=0.04)


def test_variance_is_that_of_all_permutations():
    values = centred_values(1, 6)
    moments = BlockMoments(6, 3, 2)
    moments.add(torch.from_numpy(values).float())
    found = moments.sums("cpu")["variance"]
    for k, d in np.ndindex(3, 2):
        assert float(found[k, d]) == pytest.approx(
            (all_sums(values[:, k, :, d]) ** 2).mean(), rel=1e-5
        )


@pytest.mark.parametrize("size", [1.0, 1.3e-9, 1.3e9])
def test_block_sums_do_not_depend_on_parts_or_on_the_unit_of_logits(size):
    values = torch.from_numpy(centred_values(2, 8)).float()
    whole = BlockMoments(8, 3, 2)
    whole.add(values)
    unit = power_of_two(size)
    parts = BlockMoments(8, 3, 2, unit)
    for images in (slice(0, 3), slice(3, 8)):
        parts.add(values[:, :, images] * (size / unit))
    for (name, one), other in zip(
        whole.sums("cpu").items(), parts.sums("cpu").values(), strict=True
    ):
        power = {"variance": 2, "fourth": 4, "sixth": 6, "eighth": 8}[name]
        torch.testing.assert_close(one, other / size**power, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "unit"), [(1.3, 1.0), (1.5, 2.0), (3.0e-3, 2.0**-8), (0.0, 1.0), (math.inf, 1.0)]
)
def test_units_are_powers_of_two_that_divide_without_rounding(size, unit):
    assert power_of_two(size) == unit


def test_values_are_left_as_they_were():
    values = torch.from_numpy(centred_values(3, 5)).float()
    before = values.clone()
    BlockMoments(5, 3, 2).add(values)
    assert torch.equal(values, before)


def test_arrangements_are_ways_to_give_out_the_maps_that_differ():
    present = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 0]]).float()
    ways = torch.exp(log_arrangements(present))
    expected = [4, 1, 24, 12]
    torch.testing.assert_close(ways, torch.tensor(expected, dtype=torch.float64))
