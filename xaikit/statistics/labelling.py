"""Labelling many batches with the same centroids, fast and to the bit as `kmeans.assign`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.kmeans import _codebook

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, Shaped
    from torch import Tensor

_ROWS = 512
_UNIT = 2.0**-24


class Labeller:
    """`xaikit.statistics.kmeans.assign_torch` for one set of centroids.

    On a CPU, scores are computed in float32 first. Where the best is ahead of the second by more
    than a bound of the rounding error, in whatever order the sums were taken (Higham 2002,
    *Accuracy and Stability of Numerical Algorithms*, section 3.1), float64 would choose the same;
    only the other rows are scored again in float64, where every order of summation is exact.

    Parameters
    ----------
    centroids : float [k, d]
        Values in [0, 1].
    counts : int64 [k]
        Rows of each cluster; a cluster of none is left out.
    device : torch.device
        Where the gates will be.
    """

    def __init__(
        self,
        centroids: Float[np.ndarray, "k d"],
        counts: Int64[np.ndarray, " k"],
        device: torch.device | str = "cpu",
    ) -> None:
        device = torch.device(device)
        # Apple's devices have no float64.
        self._device = torch.device("cpu") if device.type == "mps" else device
        table, offsets = (torch.from_numpy(part) for part in _codebook(centroids, counts))
        self._table, self._offsets = table.to(self._device), offsets.to(self._device)
        occupied = torch.isfinite(offsets)
        self._occupied = torch.nonzero(occupied).flatten().to(self._device)
        # A shift common to all clusters changes no choice and leaves less to round.
        shift = table[occupied].mean(0)
        near = table[occupied] - shift
        self._near = near.float().T.contiguous()
        self._near_offsets = offsets[occupied].float()
        width = table.shape[1]
        largest = float(near.abs().sum(1).max())
        rounding = (width + 8) * _UNIT * (2 * largest + 4 * float(offsets[occupied].max()) / width)
        self._margin = 2.0 * rounding / (1.0 - width * _UNIT)
        self._rows = torch.empty(0)

    def __call__(self, gates: Shaped[Tensor, "*rows d"]) -> Int64[Tensor, " *rows"]:
        """Nearest centroid of each row of zeros and ones, on the device of `gates`."""
        rows = gates.to(self._device).reshape(-1, gates.shape[-1])
        if rows.dtype == torch.bool:
            # The same bytes, which a CPU turns into floats five times as fast.
            rows = rows.view(torch.uint8)
        if self._device.type == "cpu" and len(self._occupied) > 1:
            found = torch.cat([self._label_fast(part) for part in rows.split(_ROWS)])
        else:
            found = torch.cat([self._label(part) for part in rows.split(16384)])
        return found.reshape(gates.shape[:-1]).to(gates.device)

    def _label(self, rows: Tensor) -> Tensor:
        return (self._offsets - 2.0 * (rows.double() @ self._table.T)).argmin(1)

    def _label_fast(self, rows: Tensor) -> Tensor:
        if self._rows.shape[1:] != rows.shape[1:]:
            # One buffer: memory that is asked for anew costs more than the product.
            self._rows = torch.empty(_ROWS, rows.shape[1])
        values = self._rows[: len(rows)].copy_(rows)
        scores = self._near_offsets - 2.0 * (values @ self._near)
        best, at = scores.topk(2, dim=1, largest=False)
        found = self._occupied[at[:, 0]]
        unsure = torch.nonzero(best[:, 1] - best[:, 0] <= self._margin).flatten()
        if len(unsure):
            found[unsure] = self._label(rows[unsure])
        return found
