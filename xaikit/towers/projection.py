"""What each attention head writes into the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    linear = next((part for part in found if isinstance(part, nn.Linear)), None)
    if linear is None:
        raise XaikitError(f"{tower.info.model}: layer {layer} has no output projection")
    value = call.value.float()
    heads, dim = value.shape[1], value.shape[3]
    # Parallel blocks feed attention and FFN into one projection, the heads first.
    weight = linear.weight.float()[:, : heads * dim].unflatten(1, (heads, dim))
    return value @ weight.permute(1, 2, 0)
