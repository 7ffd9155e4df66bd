"""p-values of edges that are right far out in the tails, also where images behind them are few.

The permutation null of an edge is a sum over images. Where many count alike it is close to
normal; where a cluster is in few images, or some logits are far out, it is a nearly normal bulk
and, now and then, one of a few large values. Its fourth, sixth and eighth moments are known in
closed form (see `xaikit.statistics.block_moments`), at the price of the pass that finds the
variance, and a tail at 1e-3 or 1e-4 is mostly decided by moments of the orders 8 to 15.

- **normal**: the fourth cumulant is as good as zero.
- **moments**: elsewhere; Edgeworth's series up to scores of 1.5, the tail that goes with the
  moments from 3 (see `xaikit.statistics.moment_tail`), and in between a mean of both (see
  `shaped_tail`).
- **arrangements**: so few label maps hold the edge's clusters that the number of ways to give
  them out bounds the p-value.

References
----------
Winkler, Ridgway, Douaud, Nichols and Smith (2016), Faster permutation inference in brain imaging,
NeuroImage 141, for tails from moments; Lugannani and Rice (1980), Saddle point approximation for
the distribution of the sum of independent random variables, Adv. Appl. Probab. 12. That the
approximation is taken of the logarithm of the size, whose generating function the moments are, is
our own: a gamma tail from the third moment (Winkler et al.) is wrong by a factor of 5 where one
far-out image decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.moment_tail import SMALLEST, MomentTail
from xaikit.statistics.multiple import two_sided_normal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor

METHODS = ("not testable", "normal", "moments", "arrangements", "sampled")
"""Names of the codes that say how an edge's p-value was found."""
NOT_TESTABLE, NORMAL, MOMENTS, ARRANGEMENTS, SAMPLED = range(len(METHODS))

TRUSTED = 0.004
"""Excess kurtosis below which a normal tail is within 10 % at 1e-4 and a third at 1e-8."""
MOST = 1.2
"""Edgeworth's series is used up to this excess kurtosis, either way."""
KNOTS = (1.5, 2.0, 2.5, 3.0)
"""Scores between which the tail goes over from the series to the moments."""
SMOOTH = math.log(1e4)
"""Logarithm of so many arrangements that a score's values lie close together."""
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class NullShape:
    """What is known of the permutation null of each edge; all float64, of one shape.

    Attributes
    ----------
    scores : Float[Tensor, "*edges"]
        Distance of the data from the null's mean in standard deviations; 0 where the null does
        not vary.
    variance : Float[Tensor, "*edges"]
    fourth, sixth, eighth : Float[Tensor, "*edges"]
        Cumulants, see `xaikit.statistics.block_moments`.
    log_arrangements : Float[Tensor, "*edges"]
        Logarithm of how many permutations an edge can tell apart.
    """

    scores: Float[Tensor, "*edges"]
    variance: Float[Tensor, "*edges"]
    fourth: Float[Tensor, "*edges"]
    sixth: Float[Tensor, "*edges"]
    eighth: Float[Tensor, "*edges"]
    log_arrangements: Float[Tensor, "*edges"]

    def cumulants(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the score, rounded so that no order of summation shows; ``*edges`` each."""
        square = self.variance.square().clamp(min=SMALLEST)
        sixfold = (square * self.variance).clamp(min=SMALLEST)
        eightfold = square.square().clamp(min=SMALLEST)
        return (
            _rounded(self.fourth / square, _DIGITS),
            _rounded(self.sixth / sixfold, _DIGITS - 2),
            _rounded(self.eighth / eightfold, _DIGITS - 4),
        )


def _rounded(values: Tensor, digits: int) -> Tensor:
    """To so many binary digits after the point."""
    return torch.round(values * 2.0**digits) / 2.0**digits


def tail_pvalues(
    zscores: Float[Tensor, "*edges"], shape: NullShape
) -> tuple[Float[Tensor, "*edges"], UInt8[Tensor, "*edges"]]:
    """Two-sided p-values of edges, and the code of the method behind each.

    Parameters
    ----------
    zscores : Float[Tensor, "*edges"]
        0 where an edge cannot be tested. Used where the normal tail is trusted; elsewhere the
        p-value is that of the permutations that `shape` describes.

    Returns
    -------
    pvalues : Float[Tensor, "*edges"]
        float64; 1 for edges that cannot be tested.
    methods : UInt8[Tensor, "*edges"]
        Index into `METHODS`.
    """
    flat = zscores.double().reshape(-1)
    cumulants = [each.reshape(-1) for each in shape.cumulants()]
    testable = flat != 0
    own = shape.scores.double().reshape(-1).abs()
    shaped = testable & (own > 0) & (cumulants[0].abs() > TRUSTED)
    pvalues = torch.where(testable, two_sided_normal(flat), 1.0)
    ways = shape.log_arrangements.reshape(-1)
    pvalues[shaped] = shaped_tail(
        own[shaped], *(each[shaped] for each in cumulants), smooth=ways[shaped] > SMOOTH
    )
    least = torch.exp(-ways)
    bounded = testable & (pvalues < least)
    pvalues = torch.maximum(pvalues, least).clamp(min=SMALLEST, max=1.0)
    pvalues = torch.where(testable, pvalues, 1.0)
    methods = torch.where(testable, torch.where(shaped, MOMENTS, NORMAL), NOT_TESTABLE)
    methods = torch.where(bounded, ARRANGEMENTS, methods).to(torch.uint8)
    return pvalues.reshape(zscores.shape), methods.reshape(zscores.shape)


def shaped_tail(
    z: Float[Tensor, " edge"],
    fourth: Float[Tensor, " edge"],
    sixth: Float[Tensor, " edge"],
    eighth: Float[Tensor, " edge"],
    *,
    smooth: Bool[Tensor, " edge"] | None = None,
) -> Float[Tensor, " edge"]:
    """Two-sided tail beyond `z >= 0` of a null with these cumulants; it never rises with `z`.

    Parameters
    ----------
    smooth : Bool[Tensor, "edge"], optional
        As in `MomentTail.of`.

    Notes
    -----
    Between the series' and the moments' own scores the truth lies between the two: nearer to the
    series at 2, to the moments at 2.5, and to the series again where the kurtosis is beyond
    `MOST`. Lines in ``log p`` over ``z^2`` join the knots, none above the one before.
    """
    tail = MomentTail.of(fourth, sixth, eighth, smooth)
    trust = (2.0 - fourth / MOST).clamp(min=0.0, max=1.0)
    weights = (0.4 * trust, 0.3 + 0.7 * trust, torch.ones_like(z))
    found = series_tail(z, fourth).log()
    last = series_tail(torch.full_like(z, KNOTS[0]), fourth).log()
    for (low, knot), weight in zip(pairwise(KNOTS), weights, strict=True):
        score = torch.full_like(z, knot)
        series = series_tail(score, fourth).log()
        moments = tail.beyond(score)
        mixed = torch.minimum(series + weight * (moments - series), last)
        way = (z.square() - low**2) / (knot**2 - low**2)
        found = torch.where(z > low, last + (mixed - last) * way.clamp(max=1.0), found)
        last = mixed
    far = tail.beyond(z.clamp(min=KNOTS[-1]))
    return torch.where(z > KNOTS[-1], torch.minimum(far, last), found).exp()


def series_tail(
    z: Float[Tensor, "*edges"], kurtosis: Float[Tensor, "*edges"]
) -> Float[Tensor, "*edges"]:
    """Two-sided tail beyond `z >= 0` by Edgeworth's series to the fourth cumulant.

    Good for scores up to 2 or 3; the kurtosis counts up to `MOST`, beyond which the series is
    none.
    """
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
    bent = density * kurtosis.clamp(min=-MOST, max=MOST) / 12.0 * (z**3 - 3.0 * z)
    return (two_sided_normal(z) + bent).clamp(min=SMALLEST)
