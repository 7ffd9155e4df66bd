"""Effects and permutation p-values of one edge, from the logits of its head alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EdgeTest:
    """Statistics of one edge and their null.

    Attributes
    ----------
    weight : float
        Prototype logit re-estimated on the tested images.
    gain : float
        Alignment gain of that prototype.
    null_weights, null_gains : Float[Tensor, "draw"]
    """

    weight: float
    gain: float
    null_weights: Tensor
    null_gains: Tensor


def alignment_gain(
    entries: Float[Tensor, "image token *destination"],
    members: Bool[Tensor, "image token *destination"],
    prototype: float,
) -> float:
    """Mean over the member entries of ``|A| - |A - P|``."""
    values = entries[members].double()
    if values.numel() == 0:
        return 0.0
    return float((values.abs() - (values - prototype).abs()).mean())


def edge_test(
    entries: Float[Tensor, "image token *destination"],
    sources: Bool[Tensor, "image token"],
    permutations: Int[np.ndarray, "draw image"],
    destinations: Bool[Tensor, "image token"] | None = None,
) -> EdgeTest:
    """Re-estimate one edge's prototype and gain under every image permutation.

    Parameters
    ----------
    entries : Float[Tensor, "image token *destination"]
        Logits of the edge's head: of its destination token ``[image, token]``, or, for a cluster
        destination, all ``[image, token, token]``.
    sources, destinations : Bool[Tensor, "image token"]
        Which tokens are of the source cluster, and of the destination cluster.
    """

    rows = list(entries.reshape(len(entries), -1).numpy())
    columns = _member_columns(sources, destinations)

    def statistics(order: np.ndarray) -> tuple[float, float]:
        found = [row[columns[other]] for row, other in zip(rows, order, strict=True)]
        values = np.concatenate(found).astype(np.float64)
        if values.size == 0:
            return 0.0, 0.0
        weight = values.mean()
        return float(weight), float((np.abs(values) - np.abs(values - weight)).mean())

    weight, gain = statistics(np.arange(len(sources)))
    null = [statistics(order) for order in permutations]
    table = torch.tensor(null, dtype=torch.float64).reshape(-1, 2)
    return EdgeTest(weight=weight, gain=gain, null_weights=table[:, 0], null_gains=table[:, 1])


def _member_columns(
    sources: Bool[Tensor, "image token"], destinations: Bool[Tensor, "image token"] | None
) -> list[Int[np.ndarray, "entry"]]:
    """Where each image's label map puts the edge's entries, flat over ``[token *destination]``."""
    rows = [np.flatnonzero(each) for each in sources.numpy()]
    if destinations is None:
        return rows
    tokens = sources.shape[1]
    ends = [np.flatnonzero(each) for each in destinations.numpy()]
    return [(i[:, None] * tokens + j).reshape(-1) for i, j in zip(rows, ends, strict=True)]
