"""Tails of scores from the moments of their null: of orders 4, 6 and 8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float
    from torch import Tensor

SMALLEST = 1e-300
"""No p-value is smaller."""
STRETCH = (0.03, 8.0)
"""Powers of a normal variable that sizes may be spread like."""
_LOOKS = 3
_FARTHEST = 1e4


@dataclass(frozen=True)
class MomentTail:
    """Two-sided tails of scores whose cumulants of even order are known.

    The moments ``E |T|^s`` are the generating function of ``log |T|``, and how their logarithm
    bends over the orders 4, 6 and 8 says what the tail is like. Where it bends less than that of
    a normal variable, one size stands out, of an image far from all others, and the rest varies
    about it: see `_apart`. Elsewhere, and where few values are reached, of which half the mass of
    one would be lost beyond its middle, see `_stretched`. Both are the normal tail where both hold.

    Attributes
    ----------
    stretched : tuple of Float[Tensor, "edge"]
        What `_stretched` gives, of every score.
    apart : Int[Tensor, "some"]
        Indices of scores of which one size stands out.
    sizes : tuple of Float[Tensor, "some"]
        What `_apart` gives of them.
    """

    stretched: tuple[Tensor, Tensor, Tensor]
    apart: Tensor
    sizes: tuple[Tensor, ...]

    @classmethod
    def of(
        cls,
        fourth: Float[Tensor, " edge"],
        sixth: Float[Tensor, " edge"],
        eighth: Float[Tensor, " edge"],
        smooth: Bool[Tensor, " edge"] | None = None,
    ) -> MomentTail:
        """Look at the moments once.

        Parameters
        ----------
        smooth : Bool[Tensor, "edge"], optional
            Where the score takes so many values that it has no steps; default: everywhere.
        """
        logs = _log_moments(fourth, sixth, eighth)
        apart = _bend(*logs) < _table()[1][-1]
        if smooth is not None:
            apart = apart & smooth
        chosen = apart.nonzero().flatten()
        return cls(_stretched(*logs), chosen, _apart([each[chosen] for each in logs]))

    def beyond(self, z: Float[Tensor, " edge"]) -> Float[Tensor, " edge"]:
        """Logarithm of the tail beyond `z`."""
        found = _stretched_tail(z, *self.stretched)
        found[self.apart] = _apart_tail(z[self.apart], *self.sizes)
        return found.clamp(math.log(SMALLEST), 0.0)


def _stretched(log4: Tensor, log6: Tensor, log8: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`a`, `b` and `c` where the moments' logarithm is ``a + b s + c L(s)``.

    `L` is that of a standard normal variable.
    """
    orders = torch.tensor([4.0, 6.0, 8.0], dtype=log4.dtype, device=log4.device)
    at4, at6, at8 = _normal_log_moment(orders)
    c = (_bend(log4, log6, log8) / _bend(at4, at6, at8)).clamp(*STRETCH)
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
        variance = torch.minimum(variance / other.clamp(min=SMALLEST), s.square())
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
    bent = _bend(log4, log6, log8)
    apart, bends = (each.to(bent) for each in _table())
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


def _bend(log4: Tensor, log6: Tensor, log8: Tensor) -> Tensor:
    """How far the moments' logarithm bends over the orders 4, 6 and 8."""
    return log4 - 2.0 * log6 + log8


@cache
def _table() -> tuple[Tensor, Tensor]:
    """Distances `d` from far to near, and the bends, rising, that they go with."""
    grid = torch.logspace(3.0, -1.3, 4000, dtype=torch.float64)
    apart = torch.cat([grid, torch.zeros_like(grid[:1])])
    return apart, _bend(*(each.log() for each in _moments_apart(apart)))


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
