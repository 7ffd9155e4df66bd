"""How an edge's sum is distributed over permutations of one block's label maps, beyond variance.

With ``f(b', b)`` what image `b` gives an edge under the label map of image ``b'``, centred over
both, the sum is ``T = sum_b f(pi(b), b)``. Its cumulants follow from power sums of `f` and of its
rows and columns; those of disjoint blocks add up, being of independent permutations.

Names of the four sums, per edge:

- **variance**: ``s2 / (b - 1)`` with ``s2 = sum f^2`` (Hoeffding 1951).
- **fourth**: the fourth cumulant, see `fourth_cumulant`.
- **eighth**: ``sum f^8 / b``, which the largest few values alone decide.
- **exclusive**: of pairs of values, ``f^4 f^4 / b^2`` summed over those in one row or column: an
  image has one label map and a label map one image, so no permutation takes both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_CACHE = 1 << 19
"""Bytes of values that a CPU takes at a time, so that three sweeps over them stay in its cache."""


def fourth_cumulant(
    images: int,
    s2: Float[Tensor, "*edges"],
    s4: Float[Tensor, "*edges"],
    rows: Float[Tensor, "*edges"],
    columns: Float[Tensor, "*edges"],
    cross: Float[Tensor, "*edges"],
) -> Float[Tensor, "*edges"]:
    """Fourth cumulant of ``sum_b f(pi(b), b)`` over all permutations of a block.

    The fourth moment is a sum over four rows and their four columns, which permutations keep
    apart or together alike; sums over distinct ones follow from those over all by Moebius
    inversion, where most vanish since `f` is centred over rows and columns.

    Parameters
    ----------
    images : int
        `b`, at least 1.
    s2, s4 : Tensor
        Sums of ``f^2`` and ``f^4``.
    rows, columns : Tensor
        Sums over the rows (columns) of the square of their sum of ``f^2``.
    cross : Tensor
        ``sum_{i,k} (sum_j f_ij f_kj)^2``, at most ``s2^2``; it hardly counts.

    References
    ----------
    Wald and Wolfowitz (1944), Statistical tests based on permutations of the observations, Ann.
    Math. Statist. 15, for the method.
    """
    sides = rows + columns
    moment = (1.0 / images + 4.0 * _inverse(images, 2)) * s4
    moment = moment + 3.0 * _inverse(images, 2) * (s2.square() - sides + s4)
    moment = moment + 6.0 * _inverse(images, 3) * (s2.square() - 2.0 * sides + 4.0 * s4)
    distinct = 36.0 * s4 - 18.0 * sides + 3.0 * s2.square() + 6.0 * cross
    moment = moment + _inverse(images, 4) * distinct
    return moment - 3.0 * (s2 / max(images - 1, 1)).square()


def _inverse(images: int, count: int) -> float:
    """One over the number of ways to draw `count` of the images in order; 0 for no way."""
    ways = math.perm(images, count)
    return 1.0 / ways if ways else 0.0


class BlockMoments:
    """The sums above for one head of one block, whose images are shown in any number of parts.

    Parameters
    ----------
    images : int
        `b`.
    clusters, width : int
        Sizes of the table of edges.
    size : float
        Root-mean-square of the logits; powers are taken in its units, to stay within float32.
    """

    def __init__(
        self,
        images: int,
        clusters: int,
        width: int,
        size: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images = images
        # A power of two divides without rounding.
        self._unit = 2.0 ** -round(math.log2(size)) if 0.0 < size < math.inf else 1.0
        self._rows2 = torch.zeros(images, clusters, width, device=device)
        self._rows4 = torch.zeros_like(self._rows2)
        self._columns2 = torch.zeros(clusters, width, device=device)
        self._columns4 = torch.zeros_like(self._columns2)
        self._eighth = torch.zeros_like(self._columns2)

    def add(self, values: Float[Tensor, "map cluster image width"]) -> None:
        """Add the values of some images under all label maps."""
        maps, shape = len(values), values.shape[1:]
        step = maps if values.is_cuda else max(1, _CACHE // (4 * max(shape.numel(), 1)))
        columns2, columns4, eighth = values.new_zeros(3, *shape)
        for start in range(0, maps, step):
            part = slice(start, start + step)
            powers = values[part] * self._unit
            powers.square_()
            self._rows2[part] += powers.sum(2)
            columns2 += powers.sum(0)
            powers.square_()
            self._rows4[part] += powers.sum(2)
            columns4 += powers.sum(0)
            powers.square_()
            eighth += powers.sum(0)
        self._columns2 += columns2.square_().sum(1)
        self._columns4 += columns4.square_().sum(1)
        self._eighth += eighth.sum(1)

    def sums(self, device: torch.device | str) -> dict[str, Float[Tensor, "cluster width"]]:
        """``variance``, ``fourth``, ``eighth`` and ``exclusive`` of the block, float64."""
        b, unit = self.images, self._unit
        rows2, rows4 = (each.to(device, torch.float64) for each in (self._rows2, self._rows4))
        columns2, columns4, eighth = (
            each.to(device, torch.float64)
            for each in (self._columns2, self._columns4, self._eighth)
        )
        s2, s4 = rows2.sum(0), rows4.sum(0)
        rows = rows2.square().sum(0)
        fourth = fourth_cumulant(b, s2, s4, rows, columns2, s2.square())
        pairs = (rows4.square().sum(0) + columns4 - eighth).clamp(min=0.0)
        return {
            "variance": s2 / max(b - 1, 1) / unit**2,
            "fourth": fourth / unit**4,
            "eighth": eighth / b / unit**8,
            "exclusive": pairs / b**2 / unit**8,
        }


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
