"""What guided clustering needs of the learning images as sums: equal in any order of adding.

Gates are zeros and ones, so ``x^T x`` are whole numbers. Queries and keys are read on a grid of
``2**-14``, sums of products within an image on one of ``2**-18``: every partial sum is then a whole
number of grid units below ``2**53``, which float64 adds without rounding. So the sums do not depend
on how images are cut into batches or shared among processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Shaped
    from torch import Tensor

GRID = 2.0**-14
"""Queries and keys are read as multiples of it."""
PRODUCT_GRID = 2.0**-18
"""Sums of their products within an image are rounded to multiples of it."""

_ROWS = 1 << 10
"""Rows of gates that are taken to float64 at a time, so that they stay in a CPU's cache."""
_STRIPS = 4


def on_grid(values: Float[Tensor, "*shape"], grid: float = GRID) -> Float64[Tensor, "*shape"]:
    """Round to multiples of `grid`, a power of two."""
    return (values.double() / grid).round_() * grid


class GuidedSums:
    """Sums over the patch tokens of the learning images.

    Parameters
    ----------
    ffn, heads, dim, patches : int
        `D_ffn`, heads of the next layer, width of a head, patch tokens of an image.
    device : torch.device
        Where the sums are kept; Apple's devices, which have no float64, keep theirs on the CPU.
    """

    def __init__(
        self, ffn: int, heads: int, dim: int, patches: int, device: torch.device | str = "cpu"
    ) -> None:
        device = torch.device(device)
        self._device = torch.device("cpu") if device.type == "mps" else device
        self._shape = (heads, dim)
        width = heads * dim
        self.totals: dict[str, Float64[Tensor, ...]] = {
            name: torch.zeros(shape, dtype=torch.float64, device=self._device)
            for name, shape in {
                "images": (),
                "gram": (ffn, ffn),
                "gates": (patches, ffn),
                "gates_query": (ffn, width),
                "gates_key": (ffn, width),
                "query": (patches, width),
                "key": (patches, width),
                "query_query": (heads, dim, dim),
                "key_key": (heads, dim, dim),
                "key_image": (heads, dim, dim),
            }.items()
        }

    def add(
        self,
        gates: Shaped[Tensor, "image patch ffn"],
        query: Float[Tensor, "image head patch dim"],
        key: Float[Tensor, "image head patch dim"],
    ) -> None:
        """Add some images.

        Parameters
        ----------
        gates : uint8 or bool Tensor
            Of the patches.
        query, key : Tensor
            Of the patches in the next layer, the queries scaled: ``A = query @ key^T``.
        """
        total = self.totals
        total["images"] += len(gates)
        rows = gates.to(self._device, torch.float32)
        total["gates"] += rows.sum(0)
        flat = rows.flatten(0, 1)
        total["gram"] += _gram(flat)
        by_token = {}
        for name, values in (("query", query), ("key", key)):
            exact = on_grid(values.to(self._device))
            moved = exact.transpose(1, 2).flatten(2)
            total[name] += moved.sum(0)
            by_token[name] = moved.flatten(0, 1)
            total[f"{name}_{name}"] += on_grid(exact.transpose(2, 3) @ exact, PRODUCT_GRID).sum(0)
        for start in range(0, len(flat), _ROWS):
            part = slice(start, start + _ROWS)
            wide = flat[part].T.double()
            for name, values in by_token.items():
                total[f"gates_{name}"].addmm_(wide, values[part])
        within = exact.sum(2)
        share = within.unsqueeze(-1) * within.unsqueeze(-2) / key.shape[2]
        total["key_image"] += on_grid(share, PRODUCT_GRID).sum(0)

    def load(self, totals: dict[str, Tensor]) -> None:
        """Take the totals of all processes, added up."""
        for name, tensor in self.totals.items():
            tensor.copy_(totals[name])

    def moments(self) -> Moments:
        """Means and second moments, on the CPU."""
        total = {name: tensor.cpu() for name, tensor in self.totals.items()}
        images = float(total["images"])
        heads, dim = self._shape
        rows = images * len(total["gates"])
        mean = total["gates"].sum(0) / rows
        gram = total["gram"] - rows * mean[:, None] * mean
        metric = {
            "query": (total["key_key"] - total["key_image"]) / rows,
            "key": total["query_query"] / rows,
        }
        targets, spreads = [], []
        for name in ("query", "key"):
            position = total[name] / images
            cross = total[f"gates_{name}"] - total["gates"].T @ position
            place = position.unflatten(1, (heads, dim)).transpose(0, 1)
            whole = total[f"{name}_{name}"] / rows
            within = whole - place.transpose(1, 2) @ place / len(position)
            targets.append(cross.unflatten(1, (heads, dim)).transpose(0, 1) @ _root(metric[name]))
            spread, most = ((metric[name] * each).sum((1, 2)) for each in (within, whole))
            # What position alone decides leaves rounding, not a target.
            spreads.append(torch.where(spread > 1e-6 * most, spread, 0.0))
        return Moments(
            rows=rows,
            mean=mean,
            gram=gram,
            cross=torch.cat(targets),
            spread=torch.cat(spreads),
        )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Centred moments of gates `x` and targets `Y` over the learning tokens.

    Attributes
    ----------
    rows : float
        Tokens.
    mean : Float64[Tensor, "ffn"]
        Mean gates.
    gram : Float64[Tensor, "ffn ffn"]
        ``x^T x`` of centred gates.
    cross : Float64[Tensor, "target ffn dim"]
        ``x^T Y`` of each target.
    spread : Float64[Tensor, "target"]
        Mean squared norm of each target.
    """

    rows: float
    mean: Tensor
    gram: Tensor
    cross: Tensor
    spread: Tensor

    def columns(self) -> Float64[Tensor, "ffn column"]:
        """``x^T Y`` of all targets, each scaled to mean squared norm 1; a constant one is zero."""
        return scaled(self.cross, self.spread).transpose(0, 1).flatten(1)


def scaled(
    cross: Float64[Tensor, "target ffn dim"], spread: Float64[Tensor, "target"]
) -> Float64[Tensor, "target ffn dim"]:
    """Divide each target by the root of its mean squared norm; leave out what does not vary."""
    scale = torch.where(spread > 0.0, spread.clamp(min=1e-300).rsqrt(), 0.0)
    return cross * scale[:, None, None]


def _gram(rows: Float[Tensor, "row ffn"]) -> Float64[Tensor, "ffn ffn"]:
    """``x^T x`` of zeros and ones, exact: each pair of columns is multiplied once."""
    ffn = rows.shape[1]
    found = rows.new_zeros((ffn, ffn), dtype=torch.float64)
    step = max(1, -(-ffn // _STRIPS))
    # Whole numbers below 2**24 are exact in float32: 65,536 rows at a time are far from it.
    for part in rows.split(1 << 16):
        for start in range(0, ffn, step):
            found[start : start + step, start:] += part[:, start : start + step].T @ part[:, start:]
    upper = found.triu()
    return upper + upper.triu(1).T


def _root(matrix: Float64[Tensor, "head dim dim"]) -> Float64[Tensor, "head dim dim"]:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.transpose(1, 2)) / 2)
    root: Tensor = vectors * values.clamp(min=0.0).sqrt().unsqueeze(1) @ vectors.transpose(1, 2)
    return root
