"""Tails from moments: of a normal null, of heavy and light ones, and of one image's size."""

from __future__ import annotations

import math

import pytest
import torch

from xaikit.statistics.moment_tail import MomentTail
from xaikit.statistics.multiple import two_sided_normal


def moment_tail(z, *cumulants):
    """The tail beyond `z` of scores with these cumulants."""
    return MomentTail.of(*cumulants).beyond(z).exp()


def test_a_normal_null_has_the_normal_tail():
    z = torch.linspace(0.5, 30.0, 60, dtype=torch.float64)
    nothing = torch.zeros_like(z)
    torch.testing.assert_close(
        moment_tail(z, nothing, nothing, nothing), two_sided_normal(z), rtol=0.01, atol=0
    )


def test_heavy_and_light_tails_that_are_known():
    """Laplace's distribution, and a sum of three uniform ones, far beyond what the series can."""
    z = torch.tensor([3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    laplace = moment_tail(z, *(torch.full_like(z, each) for each in (3.0, 30.0, 630.0)))
    torch.testing.assert_close(laplace, torch.exp(-math.sqrt(2.0) * z), rtol=0.1, atol=0)
    z = torch.tensor([2.4, 2.6], dtype=torch.float64)
    # In units of their deviation 1/2 the sum ends at 3: (3 - z)^3 / 24 on either side.
    cumulants = [
        3.0 * 2.0**order * each for order, each in ((4, -1 / 120), (6, 1 / 252), (8, -1 / 240))
    ]
    uniform = moment_tail(z, *(torch.full_like(z, each) for each in cumulants))
    torch.testing.assert_close(uniform, (3.0 - z) ** 3 / 24.0, rtol=0.25, atol=0)


def mixture_cumulants(parts):
    """Cumulants 4, 6 and 8 of a symmetric mixture, and its scale, of (weight, centre, spread)."""

    def moment(order):
        return sum(
            weight
            * sum(
                math.comb(order, k) * centre ** (order - k) * spread**k * math.prod(range(1, k, 2))
                for k in range(0, order + 1, 2)
            )
            for weight, centre, spread in parts
        )

    scale = math.sqrt(moment(2))
    m4, m6, m8 = (moment(order) / scale**order for order in (4, 6, 8))
    fourth, sixth = m4 - 3.0, m6 - 15.0 * m4 + 30.0
    return scale, (fourth, sixth, m8 - 28.0 * m6 - 35.0 * m4**2 + 420.0 * m4 - 630.0)


@pytest.mark.parametrize("spread", [0.3, 0.8])
@pytest.mark.parametrize("weight", [0.2, 0.03, 0.004])
def test_the_tail_beyond_one_image_that_is_far_from_all_others(weight, spread):
    """With some chance the score is that image's, and the others' bulk moves it either way."""
    rest = 0.7 * spread
    scale, cumulants = mixture_cumulants([(weight, 5.0, spread), (1.0 - weight, 0.0, rest)])
    z = torch.tensor([5.0 + step * spread for step in (-1.5, 0.0, 1.0, 2.0, 3.0)]).double()
    exact = weight * torch.special.ndtr((5.0 - z) / spread)
    exact = exact + (1.0 - weight) * 2.0 * torch.special.ndtr(-z / rest)
    found = moment_tail(z / scale, *(torch.full_like(z, each) for each in cumulants))
    torch.testing.assert_close(found, exact, rtol=0.15, atol=0)
