"""p-values of edges that are right far out in the tails, also where images behind them are few.

The permutation null of an edge is a sum over images. Where many count alike it is close to
normal; where a cluster is in few images, or some logits are far out, it is a nearly normal bulk
and, now and then, one of a few large values. That is how it is modelled here: `N` jumps of one
size `J`, rare and at most a few together, on top of a normal. Rate, size and how far jumps shut
each other out come from the null's fourth cumulant and from eighth powers (see
`xaikit.statistics.block_moments`), so one pass over the images gives all of them.

- **normal**: the fourth cumulant is as good as zero.
- **light**: it is negative, as that of any permutation of few images without far-out values; the
  score is moved outwards by the Cornish-Fisher expansion.
- **jumps**: it is positive.
- **arrangements**: so few label maps hold the edge's clusters that the number of ways to give
  them out bounds the p-value.

References
----------
Winkler, Ridgway, Douaud, Nichols and Smith (2016), Faster permutation inference in brain imaging,
NeuroImage 141, for tails from moments; Robinson (1982), Saddlepoint approximations for
permutation tests and confidence intervals, J. R. Stat. Soc. B 44, for the null as a sum of rare
contributions. The model is our own: a gamma tail from the third moment (Winkler et al.) is
wrong by a factor of 5 where one far-out image decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.multiple import two_sided_normal

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

METHODS = ("not testable", "normal", "light", "jumps", "arrangements", "sampled")
"""Names of the codes that say how an edge's p-value was found."""
NOT_TESTABLE, NORMAL, LIGHT, JUMPS, ARRANGEMENTS, SAMPLED = range(len(METHODS))

TRUSTED = 0.004
"""Excess kurtosis below which a normal tail is within 10 % at 1e-4 and a third at 1e-8."""
LIGHTEST = 0.2
"""Light tails are made use of up to this (negative) excess kurtosis: that of one block of 32."""
HEAVIEST = 1.2
_MOST_JUMPS = 40
_RATE = 8.0
_CHUNK = 1 << 16
_SMALLEST = 1e-300
_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class NullShape:
    """What is known of the permutation null of each edge; all float64, of one shape.

    Attributes
    ----------
    scores : Float[Tensor, "*edges"]
        Distance of the data from the null's mean in standard deviations; 0 where the null does
        not vary.
    variance : Float[Tensor, "*edges"]
    fourth, eighth, exclusive : Float[Tensor, "*edges"]
        See `xaikit.statistics.block_moments`.
    log_arrangements : Float[Tensor, "*edges"]
        Logarithm of how many permutations an edge can tell apart.
    """

    scores: Float[Tensor, "*edges"]
    variance: Float[Tensor, "*edges"]
    fourth: Float[Tensor, "*edges"]
    eighth: Float[Tensor, "*edges"]
    exclusive: Float[Tensor, "*edges"]
    log_arrangements: Float[Tensor, "*edges"]

    @property
    def kurtosis(self) -> Float[Tensor, "*edges"]:
        """Excess kurtosis, rounded so that no order of summation shows."""
        scale = 2.0 ** (_DIGITS + 2)
        found = self.fourth / self.variance.square().clamp(min=_SMALLEST)
        return torch.round(found * scale) / scale


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
    kurtosis = shape.kurtosis.reshape(-1)
    testable = flat != 0
    own = shape.scores.double().reshape(-1).abs()
    shaped = testable & (own > 0)
    methods = torch.where(
        kurtosis > TRUSTED, JUMPS, torch.where(kurtosis < -TRUSTED, LIGHT, NORMAL)
    )
    methods = torch.where(shaped, methods, torch.where(testable, NORMAL, NOT_TESTABLE))
    pvalues = torch.where(testable, two_sided_normal(flat), 1.0)
    light = methods == LIGHT
    pvalues[light] = light_tail(own[light], kurtosis[light])
    where = (methods == JUMPS).nonzero().flatten()
    eighth, exclusive = _standardised(shape)
    for part in where.split(_CHUNK) if len(where) else ():
        jumps = jump_tail(own[part], kurtosis[part], eighth[part], exclusive[part])
        # Between the bulk and one jump, where jumps of other sizes lie, the series is nearer.
        pvalues[part] = torch.maximum(jumps, heavy_tail(own[part], kurtosis[part]))
    least = torch.exp(-shape.log_arrangements.reshape(-1))
    bounded = testable & (pvalues < least)
    # Half the mass of one arrangement: a smooth tail passes through the middle of each step.
    pvalues = torch.maximum(pvalues + 0.5 * least, least).clamp(max=1.0)
    pvalues = torch.where(testable, pvalues.clamp(min=_SMALLEST), 1.0)
    methods = torch.where(bounded, ARRANGEMENTS, methods).to(torch.uint8)
    return pvalues.reshape(zscores.shape), methods.reshape(zscores.shape)


def light_tail(
    z: Float[Tensor, "*edges"], kurtosis: Float[Tensor, "*edges"]
) -> Float[Tensor, "*edges"]:
    """Two-sided tail beyond `z >= 0` for a negative excess kurtosis.

    References
    ----------
    Cornish and Fisher (1938), Moments and cumulants in the specification of distributions.
    """
    moved = z - kurtosis.clamp(min=-LIGHTEST, max=0.0) / 24.0 * (z**3 - 3.0 * z)
    # Far inside, the expansion may cross the middle; the tail there is 1.
    return two_sided_normal(moved.clamp(min=0.0))


def heavy_tail(
    z: Float[Tensor, "*edges"], kurtosis: Float[Tensor, "*edges"]
) -> Float[Tensor, "*edges"]:
    """Two-sided tail beyond `z >= 0` by Edgeworth's series to the fourth cumulant.

    Good for scores of 2 and 3; the kurtosis counts up to 1.2, beyond which the series is none.
    """
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
    return two_sided_normal(z) + density * kurtosis.clamp(min=0.0, max=HEAVIEST) / 12.0 * (
        z**3 - 3.0 * z
    )


def jump_tail(
    z: Float[Tensor, " edge"],
    kurtosis: Float[Tensor, " edge"],
    eighth: Float[Tensor, " edge"],
    exclusive: Float[Tensor, " edge"],
) -> Float[Tensor, " edge"]:
    """Two-sided tail beyond `z >= 0` of a normal bulk with rare jumps of one size.

    Parameters
    ----------
    z, kurtosis : Tensor
        In units of the standard deviation; `kurtosis` is positive.
    eighth, exclusive : Tensor
        In the same units, to the eighth power.

    Notes
    -----
    Jumps have rate ``r`` and size ``J`` with ``r J^4`` the fourth cumulant and ``r J^8`` the
    eighth power sum. ``N`` of them come together with probability proportional to
    ``r^N / N! prod_{n<N} (1 - n/m) (1 - r/m)^(m-N)``: binomial of ``m`` trials where `m` is whole,
    and ``1/m`` is the share of pairs that shut each other out. All jumps go one way, which is
    how they reach farthest.
    """
    size4 = eighth.clamp(min=_SMALLEST) / kurtosis
    rate = (kurtosis / size4).clamp(max=_RATE)
    size = (kurtosis / rate.clamp(min=_SMALLEST)).pow(0.25)
    trials = (kurtosis.square() / exclusive.clamp(min=_SMALLEST)).clamp(min=1.0, max=1e9)
    rate = torch.minimum(torch.minimum(rate, 0.999 / size.square()), 0.5 * trials)
    weights = _jump_weights(rate, trials)
    count = torch.arange(weights.shape[1], dtype=torch.float64, device=z.device)
    mean = weights @ count
    spread = weights @ count.square() - mean.square()
    bulk = (1.0 - spread * size.square()).clamp(min=1e-6).sqrt()
    found = torch.zeros_like(z)
    for number in range(weights.shape[1]):
        weight = weights[:, number]
        if float(weight.max()) < _SMALLEST:
            break
        shift = (number - mean) * size
        upper = torch.special.ndtr((shift - z) / bulk)
        found += weight * (upper + torch.special.ndtr((-shift - z) / bulk))
    return found.clamp(max=1.0)


def _jump_weights(
    rate: Float[Tensor, " edge"], trials: Float[Tensor, " edge"]
) -> Float[Tensor, "edge count"]:
    """Probability of each number of jumps."""
    count = torch.arange(_MOST_JUMPS + 1, dtype=torch.float64, device=rate.device)
    apart = (1.0 - count[:-1] / trials[:, None]).clamp(min=0.0).log()
    together = torch.cat([torch.zeros_like(apart[:, :1]), apart.cumsum(1)], dim=1)
    powers = count * rate.clamp(min=_SMALLEST).log()[:, None] - torch.lgamma(count + 1.0)
    none = (trials[:, None] - count) * torch.log1p(-rate / trials)[:, None]
    weights = torch.exp(powers + together + none)
    return weights / weights.sum(1, keepdim=True)


def _standardised(shape: NullShape) -> tuple[Tensor, Tensor]:
    """Eighth powers in units of the standard deviation, rounded to few binary digits."""
    scale = shape.variance.reshape(-1).clamp(min=_SMALLEST).pow(4).clamp(min=_SMALLEST)
    found = []
    for each in (shape.eighth, shape.exclusive):
        mantissa, exponent = torch.frexp(each.reshape(-1) / scale)
        digits = torch.round(mantissa * 2.0**_DIGITS) / 2.0**_DIGITS
        found.append(torch.ldexp(digits, exponent))
    return found[0], found[1]
