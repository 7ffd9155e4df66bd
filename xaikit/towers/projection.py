"""What each attention head writes into the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xaikit.errors import XaikitError

if TYPE_CHECKING:
    from jaxtyping import Float

    from xaikit.towers.interception import AttentionCall
    from xaikit.towers.tower import Tower

NAMES = ("out_proj", "proj", "attn_out_proj")
"""What the libraries call an attention module's output projection."""


def written_values(
    tower: Tower, layer: int, call: AttentionCall
) -> Float[Tensor, "batch head token model"]:
    """``W_O v_j``: what attending to token `j` alone writes, ``[B, H, N, D_model]`` float32.

    A norm between the heads and the projection (some timm models) and a layer scale after it are
    left out.

    Raises
    ------
    XaikitError
        If the attention module has no output projection of its own.
    """
    attention = tower.blocks[layer].attention
    found = (getattr(attention, name, None) for name in NAMES)
    linear = next((part for part in found if hasattr(part, "in_features")), None)
    if linear is None:
        raise XaikitError(f"{tower.info.model}: layer {layer} has no output projection")
    value = call.value.float()
    heads, dim = value.shape[1], value.shape[3]
    # Parallel blocks feed attention and FFN into one projection, the heads first.
    weight = _weight(linear).float()[:, : heads * dim].unflatten(1, (heads, dim))
    projected: Tensor = value @ weight.permute(1, 2, 0)
    return projected


def _weight(linear: Any) -> Tensor:
    """The matrix of a linear module; of one with adapters, what they make of it together."""
    own: Tensor = linear.weight
    if type(linear) is nn.Linear or not hasattr(linear, "base_layer"):
        return own
    inputs = torch.eye(linear.in_features, device=own.device, dtype=own.dtype)
    made: Tensor = linear(inputs) - linear(torch.zeros_like(inputs[:1]))
    return made.T
