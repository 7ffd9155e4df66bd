"""p-values of edges that are right far out in the tails, also where images behind them are few.

The permutation null of an edge is a sum over images. Where many count alike it is close to
normal; where a cluster is in few images, or some logits are far out, it is a nearly normal bulk
and, now and then, one of a few large values. Its fourth, sixth and eighth moments are known in
closed form (see `xaikit.statistics.block_moments`), at the price of the pass that finds the
variance, and a tail at 1e-3 or 1e-4 is mostly decided by moments of the orders 8 to 15.

- **normal**: the fourth cumulant is as good as zero.
- **moments**: elsewhere; Edgeworth's series up to scores of 1.5, the tail that goes with the
  moments from 3 (see `moment_tail`), and in between a mean of both (see `shaped_tail`).
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

from xaikit.statistics.multiple import two_sided_normal

if TYPE_CHECKING:
    from collections.abc import Sequence

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
STRETCH = (0.03, 8.0)
SMOOTH = math.log(1e4)
"""Logarithm of so many arrangements that a score's values lie close together."""
_LOOKS = 3
_FARTHEST = 1e4
_SMALLEST = 1e-300
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
        square = self.variance.square().clamp(min=_SMALLEST)
        sixfold = (square * self.variance).clamp(min=_SMALLEST)
        eightfold = square.square().clamp(min=_SMALLEST)
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
    pvalues = torch.maximum(pvalues, least).clamp(min=_SMALLEST, max=1.0)
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
        As in `moment_tail`.

    Notes
    -----
    Between the series' and the moments' own scores the truth lies between the two: nearer to the
    series at 2, to the moments at 2.5, and to the series again where the kurtosis is beyond
    `MOST`. Lines in ``log p`` over ``z^2`` join the knots, none above the one before.
    """
    tail = _MomentTail.of(fourth, sixth, eighth, smooth)
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
    return (two_sided_normal(z) + bent).clamp(min=_SMALLEST)


def moment_tail(
    z: Float[Tensor, " edge"],
    fourth: Float[Tensor, " edge"],
    sixth: Float[Tensor, " edge"],
    eighth: Float[Tensor, " edge"],
    *,
    smooth: Bool[Tensor, " edge"] | None = None,
) -> Float[Tensor, " edge"]:
    """Two-sided tail beyond `z` of a score whose cumulants of even order are known.

    Parameters
    ----------
    smooth : Bool[Tensor, "edge"], optional
        Where the score takes so many values that it has no steps; default: everywhere.

    Notes
    -----
    The moments ``E |T|^s`` are the generating function of ``log |T|``, and how their logarithm
    bends over the orders 4, 6 and 8 says what the tail is like. Where it bends less than that of
    a normal variable, one size stands out, of an image far from all others, and the rest varies
    about it: see `_apart`. Elsewhere, and where few values are reached, of which half the mass of
    one would be lost beyond its middle, see `_stretched`. Both are the normal tail where both hold.
    """
    return _MomentTail.of(fourth, sixth, eighth, smooth).beyond(z).exp()


@dataclass(frozen=True)
class _MomentTail:
    """The tails of scores, whose moments are looked at once."""

    stretched: tuple[Tensor, Tensor, Tensor]
    apart: Tensor
    """Indices of scores of which one size stands out."""
    sizes: tuple[Tensor, ...]

    @classmethod
    def of(
        cls, fourth: Tensor, sixth: Tensor, eighth: Tensor, smooth: Tensor | None
    ) -> _MomentTail:
        """See `moment_tail`."""
        logs = _log_moments(fourth, sixth, eighth)
        bent = logs[0] - 2.0 * logs[1] + logs[2]
        apart = bent < _BENDS[-1]
        if smooth is not None:
            apart = apart & smooth
        chosen = apart.nonzero().flatten()
        return cls(_stretched(bent, *logs), chosen, _apart([each[chosen] for each in logs]))

    def beyond(self, z: Tensor) -> Tensor:
        """Logarithm of the two-sided tail beyond `z`."""
        found = _stretched_tail(z, *self.stretched)
        found[self.apart] = _apart_tail(z[self.apart], *self.sizes)
        return found.clamp(math.log(_SMALLEST), 0.0)


def _stretched(
    bent: Tensor, log4: Tensor, log6: Tensor, log8: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`a`, `b` and `c` where the moments' logarithm is ``a + b s + c L(s)``.

    `L` is that of a standard normal variable.
    """
    orders = torch.tensor([4.0, 6.0, 8.0], dtype=bent.dtype, device=bent.device)
    at4, at6, at8 = _normal_log_moment(orders)
    c = (bent / (at4 - 2.0 * at6 + at8)).clamp(*STRETCH)
    b = (log8 - log4 - c * (at8 - at4)) / 4.0
    return log6 - 6.0 * b - c * at6, b, c


def _stretched_tail(z: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Logarithm of the tail by the saddlepoint of ``P(log |T| > log z)``.

    It is that of the normal variable at ``z0 = (z / e^b)^(1/c)``, and with ``M(z) = L(s) - s log
    z`` at ``s = z^2``, its saddlepoint,

        P = e^a c^(-1/2) P_normal(z0) exp((c - 1) M(z0)).
    """
    z0 = torch.exp((z.log() - b) / c).clamp(max=_FARTHEST)
    normal = math.log(2.0) + torch.special.log_ndtr(-z0)
    saddle = _normal_log_moment(z0.square()) - z0.square() * z0.log()
    found: Tensor = a - 0.5 * c.log() + normal + (c - 1.0) * saddle
    return found


def _apart(logs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`d`, `s`, `p` and the rest's deviation: with probability `p` the score is ``s (d + N)``.

    `N` is normal. Else the score is normal too, with the variance that is left; what that has of
    the moments is small, and is taken off for a second look.
    """
    moments = [log.exp() for log in logs]
    rest = [torch.zeros_like(each) for each in moments]
    for _ in range(_LOOKS):
        left = [torch.maximum(m - r, 0.05 * m).log() for m, r in zip(moments, rest, strict=True)]
        d, s, p = _size_apart(*left)
        other = (1.0 - p).clamp(min=0.0)
        variance = (1.0 - p * s.square() * (d.square() + 1.0)).clamp(min=0.0)
        variance = torch.minimum(variance / other.clamp(min=_SMALLEST), s.square())
        rest = [other * each * variance**half for each, half in ((3.0, 2), (15.0, 3), (105.0, 4))]
    return d, s, p, variance.sqrt()


def _apart_tail(z: Tensor, d: Tensor, s: Tensor, p: Tensor, deviation: Tensor) -> Tensor:
    """Logarithm of the tail of what `_apart` gives."""
    size = torch.logaddexp(torch.special.log_ndtr(d - z / s), torch.special.log_ndtr(-d - z / s))
    rest = (1.0 - p).clamp(min=0.0).log() + math.log(2.0)
    rest = rest + torch.special.log_ndtr(-z / deviation)
    return torch.logaddexp(p.log() + size, rest)


def _size_apart(log4: Tensor, log6: Tensor, log8: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`d`, `s` and `p` of these moments: how much they bend gives `d`."""
    bent = log4 - 2.0 * log6 + log8
    apart, bends = (
        torch.tensor(each, dtype=bent.dtype, device=bent.device) for each in (_APART, _BENDS)
    )
    after = torch.searchsorted(bends, bent.contiguous()).clamp(1, len(bends) - 1)
    low, high = bends[after - 1], bends[after]
    way = ((bent - low) / (high - low)).clamp(0.0, 1.0)
    d = apart[after - 1] + way * (apart[after] - apart[after - 1])
    fourth, sixth, _ = _moments_apart(d)
    s = torch.exp((log6 - log4 - sixth.log() + fourth.log()) / 2.0)
    return d, s, torch.exp(log4 - fourth.log()) / s**4


def _moments_apart(d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``E (d + N)^k`` for 4, 6 and 8."""
    square = d.square()
    fourth = (square + 6.0) * square + 3.0
    sixth = ((square + 15.0) * square + 45.0) * square + 15.0
    return fourth, sixth, (((square + 28.0) * square + 210.0) * square + 420.0) * square + 105.0


def _bends(d: Tensor) -> Tensor:
    """How far the moments' logarithm bends over the orders 4, 6 and 8."""
    fourth, sixth, eighth = _moments_apart(d)
    return fourth.log() - 2.0 * sixth.log() + eighth.log()


_apart_grid = torch.logspace(3.0, -1.3, 4000, dtype=torch.float64)
# Lists, so that a table is made on the device where it is used.
_APART = [*_apart_grid.tolist(), 0.0]
_BENDS = [*_bends(_apart_grid).tolist(), float(_bends(torch.zeros(1, dtype=torch.float64)))]
"""Distances `d` from far to near, and the bends, rising, that they go with."""


def _log_moments(fourth: Tensor, sixth: Tensor, eighth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the fourth, sixth and eighth moment, which no rounding makes impossible."""
    fourth = fourth.clamp(min=-2.0 + 1e-3)
    m4 = 3.0 + fourth
    m6 = torch.maximum(15.0 + 15.0 * fourth + sixth, m4.square() * 1.0001)
    m8 = 105.0 + 210.0 * fourth + 35.0 * fourth.square() + 28.0 * sixth + eighth
    m8 = torch.maximum(m8, m6.square() / m4 * 1.0001)
    return m4.log(), m6.log(), m8.log()


def _normal_log_moment(s: Tensor) -> Tensor:
    """``log E |N|^s`` of a standard normal variable."""
    return 0.5 * s * math.log(2.0) + torch.lgamma(0.5 * (s + 1.0)) - 0.5 * math.log(math.pi)
