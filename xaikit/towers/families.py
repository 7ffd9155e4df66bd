"""Where each model family keeps its blocks, and how its module is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from xaikit.artifacts.tokens import CLASS_TOKEN, DISTILLATION_TOKEN, register
from xaikit.errors import XaikitError
from xaikit.towers.built import unwrapped

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """The modules of one layer.

    Attributes
    ----------
    block : nn.Module
        The whole layer; its first argument is the residual stream ``[B, N, D_model]``.
    attention : nn.Module
        The module whose forward holds the layer's one attention call.
    ffn : nn.Module
        Its first argument is `h_l`, the FFN's input after the norm.
    activation : nn.Module
        Its output is the FFN's activation ``[B, N, D_ffn]`` (gated FFNs: the gate branch).
    heads, width, ffn_width : int
        `H`, `D_model` and `D_ffn`.
    """

    block: nn.Module
    attention: nn.Module
    ffn: nn.Module
    activation: nn.Module
    heads: int
    width: int
    ffn_width: int


@dataclass(frozen=True)
class Outputs:
    """What one pass gives.

    Attributes
    ----------
    embedding : Tensor
        ``[B, D]`` float32, not normalised.
    class_logits : Tensor, optional
        ``[B, C]`` float32 of the model's own classifier head.
    """

    embedding: Float[Tensor, "batch dim"]
    class_logits: Float[Tensor, "batch classes"] | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read and run the modules of one library.

    Attributes
    ----------
    core : callable
        The transformer inside a vision module (open_clip wraps timm trunks).
    blocks : callable
        ``blocks(module, model)``: the parts of every layer, or an XaikitError naming `model`.
    layout : callable
        `prefix_kinds`, `grid`, `image_size` and `classes` of a module.
    outputs : callable
        ``outputs(module, pixels)``: one forward pass.
    """

    core: Callable[[nn.Module], nn.Module]
    blocks: Callable[[nn.Module, str], list[BlockParts]]
    layout: Callable[[nn.Module], dict[str, Any]]
    outputs: Callable[[nn.Module, Tensor], Outputs]


def refuse(model: str, reason: str) -> XaikitError:
    """Build the one line that says why a model is refused."""
    return XaikitError(
        f"{model}: {reason}; xaikit reads the attention of plain vision transformers"
    )


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(height), int(width)


def _native_blocks(visual: Any, model: str) -> list[BlockParts]:
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if not blocks:
        raise refuse(model, f"{type(visual).__name__} has no transformer blocks")
    return [_native_block(block, model) for block in blocks]


def _native_block(block: Any, model: str) -> BlockParts:
    block = unwrapped(block)
    attention, ffn = unwrapped(block.attn), unwrapped(block.mlp)
    if isinstance(attention, nn.MultiheadAttention):
        plain = attention.in_proj_weight is not None and attention.batch_first
        if not plain or attention.bias_k is not None or attention.add_zero_attn:
            raise refuse(model, "its nn.MultiheadAttention is no plain batch-first self-attention")
    elif getattr(attention, "logit_scale", None) is not None:
        raise refuse(model, "scaled cosine attention does not call scaled_dot_product_attention")
    return BlockParts(
        block=block,
        attention=attention,
        ffn=ffn,
        activation=unwrapped(ffn.gelu),
        heads=attention.num_heads,
        width=ffn.c_fc.in_features,
        ffn_width=ffn.c_proj.in_features,
    )


def _timm_blocks(trunk: Any, model: str) -> list[BlockParts]:
    blocks = getattr(trunk, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or not len(blocks):
        raise refuse(model, f"{type(trunk).__name__} has no list of transformer blocks")
    return [_timm_block(block, model) for block in blocks]


def _timm_block(block: Any, model: str) -> BlockParts:
    block = unwrapped(block)
    attention = unwrapped(getattr(block, "attn", None))
    ffn = unwrapped(getattr(block, "mlp", None))
    if attention is None or ffn is None:
        return _timm_parallel_block(block, model)
    if "Diff" in type(attention).__name__:
        raise refuse(model, "differential attention subtracts two attention maps in every head")
    missing = [name for name in ("act", "fc2") if not hasattr(ffn, name)]
    if missing or not hasattr(attention, "num_heads"):
        raise refuse(model, f"the FFN {type(ffn).__name__} has no activation of its own")
    return BlockParts(
        block=block,
        attention=attention,
        ffn=ffn,
        activation=unwrapped(ffn.act),
        heads=attention.num_heads,
        width=ffn.fc2.out_features,
        ffn_width=ffn.fc2.in_features,
    )


def _timm_parallel_block(block: Any, model: str) -> BlockParts:
    # ParallelScalingBlock: one projection feeds the attention and the FFN, so the layer itself
    # makes the attention call and the projection's input is the FFN's.
    kind = type(block).__name__
    if kind != "ParallelScalingBlock":
        raise refuse(model, f"{kind} is not one attention and one FFN")
    return BlockParts(
        block=block,
        attention=block,
        ffn=block.in_proj,
        activation=block.mlp_act,
        heads=block.num_heads,
        width=block.in_proj.in_features,
        ffn_width=block.in_split[0],
    )


def _open_clip_core(visual: Any) -> nn.Module:
    core: nn.Module = unwrapped(getattr(visual, "trunk", visual))
    return core


def _open_clip_blocks(visual: Any, model: str) -> list[BlockParts]:
    trunk = getattr(visual, "trunk", None)
    return _native_blocks(visual, model) if trunk is None else _timm_blocks(trunk, model)


def _open_clip_layout(visual: Any) -> dict[str, Any]:
    if hasattr(visual, "trunk"):
        return _timm_layout(visual.trunk) | {"classes": 0}
    return {
        "prefix_kinds": (CLASS_TOKEN,),
        "grid": _pair(visual.grid_size),
        "image_size": _pair(visual.image_size),
        "classes": 0,
    }


def _timm_prefix(trunk: Any) -> tuple[str, ...]:
    """What timm puts before the patches, in the order in which its models put it."""
    parameters = {CLASS_TOKEN: "cls_token", DISTILLATION_TOKEN: "dist_token"}
    kinds = [kind for kind, name in parameters.items() if getattr(trunk, name, None) is not None]
    count = int(getattr(trunk, "num_prefix_tokens", len(kinds)))
    registers = range(1, count - len(kinds) + 1)
    return (*kinds, *(register(number) for number in registers))


def _timm_layout(trunk: Any) -> dict[str, Any]:
    return {
        "prefix_kinds": _timm_prefix(trunk),
        "grid": _pair(trunk.patch_embed.grid_size),
        "image_size": _pair(trunk.patch_embed.img_size),
        "classes": int(getattr(trunk, "num_classes", 0)),
    }


def _open_clip_outputs(visual: Any, pixels: Tensor) -> Outputs:
    out = visual(pixels)
    # CoCa's towers return (embedding, tokens).
    embedding = out[0] if isinstance(out, tuple) else out
    return Outputs(embedding.float())


def _timm_outputs(trunk: Any, pixels: Tensor) -> Outputs:
    # A timm model's forward is these two steps; calling them apart gives both outputs of one pass.
    tokens = trunk.forward_features(pixels)
    embedding = trunk.forward_head(tokens, pre_logits=True).float()
    if not getattr(trunk, "num_classes", 0):
        return Outputs(embedding)
    return Outputs(embedding, trunk.forward_head(tokens).float())


FAMILIES = {
    "open_clip": Family(
        core=_open_clip_core,
        blocks=_open_clip_blocks,
        layout=_open_clip_layout,
        outputs=_open_clip_outputs,
    ),
    "timm": Family(
        core=lambda trunk: trunk,
        blocks=_timm_blocks,
        layout=_timm_layout,
        outputs=_timm_outputs,
    ),
}
"""The adapters, by the name recorded in artefacts."""
