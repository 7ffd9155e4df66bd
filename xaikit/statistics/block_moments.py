"""How an edge's sum is distributed over permutations of one block's label maps, beyond variance.

With ``f(b', b)`` what image `b` gives an edge under the label map of image ``b'``, centred over
both, the sum is ``T = sum_b f(pi(b), b)``. Its even moments follow from power sums of `f`, of its
rows and of its columns: a permutation takes one value of each, so that in products of powers of
different values, those of one row or column are left out. Cumulants of disjoint blocks add up,
being of independent permutations.

Names of the four sums, per edge:

- **variance**: ``s2 / (b - 1)`` with ``s2 = sum f^2`` (Hoeffding 1951).
- **fourth**, **sixth**, **eighth**: cumulants, see `even_cumulants`.

References
----------
Wald and Wolfowitz (1944), Statistical tests based on permutations of the observations, Ann.
Math. Statist. 15, for moments as sums over distinct rows and columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from xaikit.statistics.totals import float64_home

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_CACHE = 1 << 19
"""Bytes of values that a CPU takes at a time, so that sweeps over them stay in its cache."""
_SMALLEST = 1e-30


class Side(NamedTuple):
    """Sums over the rows (or the columns) of products of their sums of powers of `f`.

    ``p42`` is ``sum_i (sum_j f_ij^4) (sum_j f_ij^2)``, and so on.
    """

    p22: Tensor
    p222: Tensor
    p2222: Tensor
    p42: Tensor
    p422: Tensor
    p44: Tensor
    p62: Tensor

    @classmethod
    def of(cls, two: Tensor, four: Tensor, six: Tensor, axis: int) -> Side:
        """From sums of ``f^2``, ``f^4`` and ``f^6``, float64."""
        square = two * two
        products = (
            square,
            square * two,
            square * square,
            four * two,
            four * square,
            four * four,
            six * two,
        )
        return cls(*(each.sum(axis) for each in products))


def even_cumulants(
    images: int,
    powers: tuple[Tensor, Tensor, Tensor, Tensor],
    rows: Side,
    columns: Side,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fourth, sixth and eighth cumulant of ``sum_b f(pi(b), b)`` over permutations of a block.

    Parameters
    ----------
    images : int
        `b`, at least 2.
    powers : tuple of Tensor
        Sums of ``f^2``, ``f^4``, ``f^6`` and ``f^8``.
    rows, columns : Side

    Notes
    -----
    Rows and columns of `f` sum to 0, so that a value that enters once can be summed out: in its
    place stand the other values of the term. That makes the fourth moment exact but for terms of
    the order of ``1 / b^2`` of it (four values that enter once: as if f were dense). Of the sixth
    and eighth, terms that keep two odd powers are left out.
    """
    m2, m4, m6, m8 = _even_moments(images, powers, rows, columns)
    square = m2 * m2
    fourth = m4 - 3.0 * square
    sixth = m6 - 15.0 * m4 * m2 + 30.0 * square * m2
    eighth = m8 - 28.0 * m6 * m2 - 35.0 * m4 * m4 + 420.0 * m4 * square - 630.0 * square * square
    return fourth, sixth, eighth


def _even_moments(
    images: int, powers: tuple[Tensor, Tensor, Tensor, Tensor], rows: Side, columns: Side
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Second to eighth moment; factors are the ways to part the powers among values."""
    s2, s4, s6, s8 = powers
    one, two, three, four, five = (_inverse(images, count) for count in range(1, 6))
    a22, a42 = _apart22(powers, rows, columns), _apart42(powers, rows, columns)
    a222, a422 = _apart222(powers, rows, columns), _apart422(powers, rows, columns)
    a62 = (s6 * s2 - rows.p62 - columns.p62 + s8).clamp(min=0.0)
    a44 = (s4 * s4 - rows.p44 - columns.p44 + s8).clamp(min=0.0)
    a2222 = _apart2222(powers, rows, columns)
    # Two values that enter once, beside f^2, f^4 and f^6.
    lone2 = s2 * s2 - 2.0 * (rows.p22 + columns.p22) + 4.0 * s4
    lone4 = s4 * s2 - 2.0 * (rows.p42 + columns.p42) + 4.0 * s6
    lone6 = s6 * s2 - 2.0 * (rows.p62 + columns.p62) + 4.0 * s8
    m4 = one * s4 + two * (3.0 * a22 + 4.0 * s4) + (6.0 * three + 3.0 * four) * lone2
    m6 = one * s6 + two * (15.0 * a42 + 6.0 * s6)
    m6 = m6 + three * (15.0 * a222 + 60.0 * a42 + 15.0 * lone4)
    m6 = m6 + 45.0 * four * (2.0 * a222 - s2 * a22 + 4.0 * a42)
    m8 = one * s8 + two * (28.0 * a62 + 35.0 * a44 + 8.0 * s8)
    m8 = m8 + three * (210.0 * a422 + 168.0 * a62 + 280.0 * a44 + 28.0 * lone6)
    beside = 2.0 * a422 - s2 * a42 + 2.0 * (a62 + a44)
    m8 = m8 + four * (105.0 * a2222 + 840.0 * a422 + 420.0 * beside)
    m8 = m8 + 420.0 * five * (2.0 * a2222 - s2 * a222 + 6.0 * a422)
    return s2 / max(images - 1, 1), m4, m6, m8


def _inverse(images: int, count: int) -> float:
    """One over the number of ways to draw `count` of the images in order; 0 for no way."""
    ways = math.perm(images, count)
    return 1.0 / ways if ways else 0.0


# Sums of products of powers over values in distinct rows and columns, by Moebius inversion over
# which of them share a row and which a column. Where rows and columns both enter a term,
# ``sum_ij f_ij^2 R_i C_j`` stands for itself times what it is where f is a product of the two.


def _apart22(powers: tuple[Tensor, ...], rows: Side, columns: Side) -> Tensor:
    s2, s4 = powers[:2]
    return (s2 * s2 - rows.p22 - columns.p22 + s4).clamp(min=0.0)


def _apart42(powers: tuple[Tensor, ...], rows: Side, columns: Side) -> Tensor:
    s2, s4, s6 = powers[:3]
    return (s4 * s2 - rows.p42 - columns.p42 + s6).clamp(min=0.0)


def _apart222(powers: tuple[Tensor, ...], rows: Side, columns: Side) -> Tensor:
    s2, s4, s6 = powers[:3]
    both = rows.p22 * columns.p22 / s2.clamp(min=_SMALLEST)
    found = s2**3 - 3.0 * s2 * (rows.p22 + columns.p22 - s4) + 6.0 * both
    found = found + 2.0 * (rows.p222 + columns.p222) - 6.0 * (rows.p42 + columns.p42) + 4.0 * s6
    return found.clamp(min=0.0)


def _apart422(powers: tuple[Tensor, ...], rows: Side, columns: Side) -> Tensor:
    s2, s4, s6, s8 = powers
    found = s4 * s2**2 + 2.0 * s6 * s2 + s4**2 + 4.0 * s8
    for side in (rows, columns):
        found = found - 2.0 * s2 * side.p42 - s4 * side.p22
        found = found + 2.0 * side.p422 - 4.0 * side.p62 - 2.0 * side.p44
    mixed = rows.p42 * columns.p22 + rows.p22 * columns.p42
    found = found + 2.0 * mixed / s2.clamp(min=_SMALLEST)
    found = found + 2.0 * rows.p42 * columns.p42 / s4.clamp(min=_SMALLEST)
    return found.clamp(min=0.0)


def _apart2222(powers: tuple[Tensor, ...], rows: Side, columns: Side) -> Tensor:
    """As if f were a product of a row's and a column's factor, and `s4` set right."""
    s2, s4 = powers[:2]
    one = s2.clamp(min=_SMALLEST)
    found = s2**4
    for side in (rows, columns):
        two, three, four = side.p22 / one**2, side.p222 / one**3, side.p2222 / one**4
        found = found * (1.0 - 6.0 * two + 3.0 * two**2 + 8.0 * three - 6.0 * four)
    found = found + 6.0 * s2**2 * (s4 - rows.p22 * columns.p22 / one**2)
    return found.clamp(min=0.0)


class BlockMoments:
    """The sums above for one head of one block, whose images are shown in any number of parts.

    Parameters
    ----------
    images : int
        `b`.
    clusters, width : int
        Sizes of the table of edges.
    unit : float
        What the values shown are divided by already, see `power_of_two`.
    """

    def __init__(
        self,
        images: int,
        clusters: int,
        width: int,
        unit: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images, self._unit = images, unit
        self._rows = torch.zeros(3, images, clusters, width, device=device)
        home = float64_home(device)
        self._columns = Side(*torch.zeros(7, clusters, width, dtype=torch.float64, device=home))
        self._eighth = torch.zeros(clusters, width, device=device)

    def add(self, values: Float[Tensor, "map cluster image width"]) -> None:
        """Add the values of some images under all label maps."""
        maps, clusters, images, width = values.shape
        each = 4 * max(maps * images * width, 1)
        step = clusters if values.is_cuda else max(1, _CACHE // each)
        columns = values.new_empty(3, clusters, images, width)
        buffers = values.new_empty(2, maps, step, images, width)
        # Whole sums of some clusters at a time: parts of sums would be read and written once more.
        for start in range(0, clusters, step):
            part = slice(start, start + step)
            square, other = buffers[:, :, : values[:, part].shape[1]]
            power = torch.mul(values[:, part], values[:, part], out=square)
            for place in range(3):
                self._rows[place, :, part] += power.sum(2)
                torch.sum(power, 0, out=columns[place, part])
                power = torch.mul(power, square, out=other)
            self._eighth[part] += power.sum((0, 2))
        two, four, six = columns.to(self._columns.p22.device, torch.float64)
        own = Side.of(two, four, six, axis=1)
        self._columns = Side(*(one + other for one, other in zip(self._columns, own, strict=True)))

    def sums(self, device: torch.device | str) -> dict[str, Float[Tensor, "cluster width"]]:
        """``variance``, ``fourth``, ``sixth`` and ``eighth`` of the block, float64."""
        b, unit = self.images, self._unit
        two, four, six = self._rows.to(device, torch.float64)
        powers = (two.sum(0), four.sum(0), six.sum(0), self._eighth.to(device, torch.float64))
        columns = Side(*(each.to(device) for each in self._columns))
        found = {"variance": powers[0] / max(b - 1, 1) * unit**2}
        if b < 2:
            return found | dict.fromkeys(("fourth", "sixth", "eighth"), torch.zeros_like(two[0]))
        cumulants = even_cumulants(b, powers, Side.of(two, four, six, axis=0), columns)
        for place, name in enumerate(("fourth", "sixth", "eighth")):
            found[name] = cumulants[place] * unit ** (4 + 2 * place)
        return found


def power_of_two(size: float) -> float:
    """The power of two nearest to a size, which divides without rounding; 1 where there is none.

    Eighth powers of values in units of their own size stay within float32.
    """
    return 2.0 ** round(math.log2(size)) if 0.0 < size < math.inf else 1.0


def log_arrangements(
    present: Float[Tensor, "image *edges"],
) -> Float[Tensor, "*edges"]:
    """Logarithm of how many ways a block's label maps can be given out that an edge can tell.

    Parameters
    ----------
    present : Tensor
        1 where an image's label map has entries of the edge's clusters. Maps without any are
        alike.
    """
    images = torch.tensor(float(len(present)), dtype=torch.float64, device=present.device)
    alike = images - present.to(torch.float64).sum(0)
    return torch.lgamma(images + 1.0) - torch.lgamma(alike + 1.0)
