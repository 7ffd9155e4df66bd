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

    def statistics(order: Tensor) -> tuple[float, float]:
        members = sources[order]
        if destinations is not None:
            members = members.unsqueeze(2) & destinations[order].unsqueeze(1)
        values = entries[members].double()
        if values.numel() == 0:
            return 0.0, 0.0
        weight = values.mean()
        gain = (values.abs() - (values - weight).abs()).mean()
        return float(weight), float(gain)

    weight, gain = statistics(torch.arange(len(sources)))
    null = [statistics(torch.from_numpy(order)) for order in permutations]
    table = torch.tensor(null, dtype=torch.float64).reshape(-1, 2)
    return EdgeTest(weight=weight, gain=gain, null_weights=table[:, 0], null_gains=table[:, 1])
