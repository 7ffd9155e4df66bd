"""Cumulants and power sums of one block against all its permutations, and against loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from xaikit.statistics.block_moments import BlockMoments, fourth_cumulant, log_arrangements


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


@pytest.mark.parametrize("images", [2, 3, 4, 5, 7])
def test_fourth_cumulant_is_that_of_all_permutations(images):
    values = centred_values(images, images)[:, 0, :, 0]
    sums = all_sums(values)
    assert abs(sums.mean()) < 1e-9
    expected = (sums**4).mean() - 3 * (sums**2).mean() ** 2
    square = values**2
    parts = (
        square.sum(),
        (values**4).sum(),
        (square.sum(1) ** 2).sum(),
        (square.sum(0) ** 2).sum(),
        ((values @ values.T) ** 2).sum(),
    )
    found = fourth_cumulant(images, *(torch.tensor(each) for each in parts))
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_block_sums_are_those_of_their_definitions():
    images = 6
    values = centred_values(1, images)
    moments = BlockMoments(images, 3, 2)
    moments.add(torch.from_numpy(values).float())
    found = moments.sums("cpu")
    for k, d in np.ndindex(3, 2):
        f = values[:, k, :, d]
        sums = all_sums(f)
        excluded = sum(
            f[i, j] ** 4 * f[i2, j2] ** 4
            for i, j, i2, j2 in np.ndindex(images, images, images, images)
            if i == i2 or j == j2
        )
        assert float(found["variance"][k, d]) == pytest.approx((sums**2).mean(), rel=1e-5)
        assert float(found["eighth"][k, d]) == pytest.approx((f**8).sum() / images, rel=1e-5)
        assert float(found["exclusive"][k, d]) == pytest.approx(excluded / images**2, rel=1e-4)
        # Its term that is only bounded is at most 6 s2^2 / (b (b-1) (b-2) (b-3)).
        exact = (sums**4).mean() - 3 * (sums**2).mean() ** 2
        slack = 6 * (f**2).sum() ** 2 / math.perm(images, 4)
        assert exact - 1e-4 * slack <= float(found["fourth"][k, d]) <= exact + 1.0001 * slack


@pytest.mark.parametrize("size", [1.0, 2.0**-30, 2.0**30])
def test_block_sums_do_not_depend_on_parts_or_on_the_unit_of_logits(size):
    values = torch.from_numpy(centred_values(2, 8)).float()
    whole = BlockMoments(8, 3, 2)
    whole.add(values)
    parts = BlockMoments(8, 3, 2, size=size)
    for images in (slice(0, 3), slice(3, 8)):
        parts.add(values[:, :, images] * size)
    for (name, one), other in zip(
        whole.sums("cpu").items(), parts.sums("cpu").values(), strict=True
    ):
        power = {"variance": 2, "fourth": 4, "eighth": 8, "exclusive": 8}[name]
        torch.testing.assert_close(one, other / size**power, rtol=1e-4, atol=1e-6)


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
