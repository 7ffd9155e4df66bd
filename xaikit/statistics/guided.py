"""Guided clusters: gates mapped to what they predict of the next layer's attention, then a tree.

*Labelling* keeps the promise of `xaikit.statistics.kmeans`: the same label for any batch, process
or device. The projection, the offset and the leaf means are multiples of one power of two `u`, so
chosen that the entries of a column add up to at most ``2**23 u``, and no finer than a hundredth of
the projection's usual entry: what another number of threads changes in the last digits of a
gradient or a decomposition then rounds to the same map. A token's gates are zeros and
ones, so every partial sum of its coordinates is a whole number of `u` below ``2**24``: exact in
any order. Differences from leaf means are below ``2**25 u``, their squares and the sum of four of
them below ``2**53 u²``: exact too, in float64. Ties go to the lowest cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.guided_sums import Moments, on_grid, scaled
from xaikit.statistics.guided_tree import divisive_tree

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int64, Shaped, UInt8
    from torch import Tensor

DIMENSIONS = 4
"""Coordinates that gates are mapped to."""
RIDGE = 0.1
"""Ridge penalty, in units of the gates' mean variance."""
FLOOR = 0.001
"""Share of the mean that is added to a move before its logarithm is taken."""
LOG_GRID = 2.0**-20
"""Logarithms of moves are read as multiples of it, for sums that are exact in any order."""
_UNITS = 2.0**23
_FINEST = 2.0**-7
"""Least unit of the map, in root-mean-square entries of its projection."""
_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class GuidedMap:
    """What labels tokens: ``z = x @ projection − offset``, then the nearest leaf mean.

    Attributes
    ----------
    projection : Float32[Tensor, "ffn 4"]
    offset : Float32[Tensor, "4"]
    leaf_means : Float32[Tensor, "leaf 4"]
        All of them multiples of one power of two.
    """

    projection: Float32[Tensor, "ffn coordinate"]
    offset: Float32[Tensor, " coordinate"]
    leaf_means: Float32[Tensor, "leaf coordinate"]

    def coordinates(
        self, gates: Shaped[Tensor, "*rows ffn"]
    ) -> Float64[Tensor, "*rows coordinate"]:
        """``z`` of each row of zeros and ones, exact."""
        # Apple's devices have no float64. Nor float32 products, which a user may have allowed to
        # be rounded to fewer digits.
        home = torch.device("cpu") if gates.device.type == "mps" else gates.device
        mapped = gates.to(home, torch.float64) @ self.projection.to(home).double()
        return mapped - self.offset.to(home).double()

    def label(self, gates: Shaped[Tensor, "*rows ffn"]) -> Int64[Tensor, "*rows"]:
        """Nearest leaf of each row, on the device of `gates`."""
        rows = gates.reshape(-1, gates.shape[-1])
        parts = [self._nearest(part) for part in rows.split(_ROWS)]
        found = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
        return found.reshape(gates.shape[:-1]).to(gates.device)

    def _nearest(self, rows: Tensor) -> Tensor:
        places = self.coordinates(rows)
        means = self.leaf_means.to(places.device).double()
        return (places[:, None] - means).square().sum(-1).argmin(1)


@dataclass(frozen=True, kw_only=True)
class LearningRows:
    """The learning tokens themselves, in the order of their images.

    Attributes
    ----------
    packed : UInt8[Tensor, "row byte"]
        Gates, eight to a byte as `numpy.packbits` packs them.
    width : int
        `D_ffn`.
    strengths : Float[Tensor, "row strength"], optional
        How much each token's attention matters (see `log_targets`).
    """

    packed: UInt8[Tensor, "row byte"]
    width: int
    strengths: Float[Tensor, "row strength"] | None = None

    def chunks(self) -> Iterator[tuple[slice, UInt8[Tensor, "row ffn"]]]:
        """Gates unpacked, some rows at a time."""
        for start in range(0, len(self.packed), _ROWS):
            rows = slice(start, min(start + _ROWS, len(self.packed)))
            unpacked = np.unpackbits(self.packed[rows].numpy(), axis=1, count=self.width)
            yield rows, torch.from_numpy(unpacked)


@dataclass(frozen=True, kw_only=True)
class GuidedTree:
    """The map before its leaves, and the learning tokens on it.

    Attributes
    ----------
    projection, offset : Float32[Tensor, "ffn 4"], Float32[Tensor, "4"]
    unit : float
        Of the grid that they are on.
    places : Float64[ndarray, "row 4"]
        Coordinates of the learning tokens.
    """

    projection: Float32[Tensor, "ffn coordinate"]
    offset: Float32[Tensor, " coordinate"]
    unit: float
    places: Float64[np.ndarray, "row coordinate"]

    def cut(self, clusters: int) -> GuidedMap:
        """Grow the tree to at most so many leaves."""
        means = [self.places[leaf].mean(0) for leaf in divisive_tree(self.places, clusters)]
        leaf_means = torch.from_numpy(np.round(np.stack(means) / self.unit) * self.unit).float()
        return GuidedMap(projection=self.projection, offset=self.offset, leaf_means=leaf_means)


def guided_tree(moments: Moments, rows: LearningRows) -> GuidedTree:
    """Regress targets on gates, and keep four coordinates of what gates predict.

    Parameters
    ----------
    moments : Moments
        Of queries and keys, from sums over the same tokens as `rows`.
    rows : LearningRows
    """
    columns = moments.columns()
    if rows.strengths is not None:
        columns = torch.cat([columns, strength_columns(moments, rows)], dim=1)
    projection, offset, unit = snapped(principal_map(moments.gram, columns), moments.mean)
    blank = torch.zeros(1, projection.shape[1])
    bare = GuidedMap(projection=projection, offset=offset, leaf_means=blank)
    places = torch.cat([bare.coordinates(gates) for _, gates in rows.chunks()]).numpy()
    return GuidedTree(projection=projection, offset=offset, unit=unit, places=places)


def principal_map(
    gram: Float64[Tensor, "ffn ffn"], columns: Float64[Tensor, "ffn column"]
) -> Float64[Tensor, "ffn coordinate"]:
    """Ridge regression of the columns on gates, then PCA of the predictions: ``W V``.

    The sign of a coordinate is such that its largest loading is positive.
    """
    penalty = max(RIDGE * float(gram.trace()) / len(gram), 1e-9)
    ridge = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.cholesky_solve(columns, torch.linalg.cholesky(ridge))
    predicted = weights.T @ gram @ weights
    _, vectors = torch.linalg.eigh((predicted + predicted.T) / 2)
    kept = vectors.flip(1)[:, :DIMENSIONS]
    largest = kept.gather(0, kept.abs().argmax(0, keepdim=True))
    found = weights @ (kept * torch.where(largest < 0, -1.0, 1.0))
    return torch.nn.functional.pad(found, (0, DIMENSIONS - found.shape[1]))


def snapped(
    projection: Float64[Tensor, "ffn coordinate"], mean: Float64[Tensor, " ffn"]
) -> tuple[Float32[Tensor, "ffn coordinate"], Float32[Tensor, " coordinate"], float]:
    """A projection and the offset ``mean @ projection`` on a grid, and the grid's unit `u`."""
    largest = float(projection.abs().sum(0).max())
    if largest == 0.0:
        return projection.float(), torch.zeros(projection.shape[1]), 1.0
    # Rounding may add half a unit an entry.
    exact = largest / (_UNITS - len(projection))
    usual = float(projection.square().mean().sqrt())
    unit = 2.0 ** math.ceil(math.log2(max(exact, _FINEST * usual)))
    found = on_grid(projection, unit)
    return found.float(), on_grid(mean @ found, unit).float(), unit


def log_targets(
    strengths: Float[Tensor, "row strength"],
) -> Float64[Tensor, "row strength"]:
    """``log(r + .001 mean r)`` of each column, centred, on the grid of sums."""
    wide = strengths.double()
    logs = torch.log((wide + FLOOR * wide.mean(0)).clamp(min=1e-300))
    return on_grid(logs - logs.mean(0), LOG_GRID)


def strength_columns(moments: Moments, rows: LearningRows) -> Float64[Tensor, "ffn strength"]:
    """``x^T Y`` of the logarithms of the strengths.

    The rows of all heads are one target, their columns another, each scaled to mean squared norm
    1: scaled head by head they drown queries and keys, which say where attention goes and not only
    how much of it matters.
    """
    assert rows.strengths is not None
    targets = log_targets(rows.strengths)
    cross = torch.zeros(rows.width, targets.shape[1], dtype=torch.float64)
    for part, gates in rows.chunks():
        cross += gates.double().T @ targets[part]
    cross -= moments.mean[:, None] * targets.sum(0)
    sides = cross.T.unflatten(0, (2, -1)).transpose(1, 2)
    spread = targets.square().mean(0).unflatten(0, (2, -1)).sum(1)
    return scaled(sides, spread).transpose(1, 2).flatten(0, 1).T
