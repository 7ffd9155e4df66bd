"""Names that transformers gives to the weights of vision transformers, as open_clip and timm do.

CLIP and SigLIP get open_clip's names (``visual.``, ``visual.trunk.``), everything else timm's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]

_CLIP: Rules = (
    (r"embeddings\.class_embedding", "class_embedding"),
    (r"embeddings\.patch_embedding\.", "conv1."),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"pre_layrnorm\.", "ln_pre."),
    (r"post_layernorm\.", "ln_post."),
)
_CLIP_BLOCK: Rules = (
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.", r"transformer.resblocks.\1.ln_\2."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.resblocks.\1.mlp.c_proj."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.resblocks.\1.attn.out_proj."),
    (
        r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)",
        r"transformer.resblocks.\1.attn.in_proj_\3|\2",
    ),
)
_TEXT: Rules = (
    (r"embeddings\.token_embedding\.", "token_embedding."),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"final_layer_norm\.", "ln_final."),
    (r"head\.", "text_projection."),
    *_CLIP_BLOCK,
)
_SIGLIP: Rules = (
    (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.qkv.\3|\2"),
    (r"post_layernorm\.", "norm."),
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.\1"),
    (r"head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"head\.layernorm\.", "attn_pool.norm."),
    (r"head\.mlp\.", "attn_pool.mlp."),
)
_VIT_BLOCK = r"(?:encoder\.layer|layers)\.(\d+)\."
"""The names in a file of transformers, and since its version 5 the module's own."""
_VIT: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (_VIT_BLOCK + r"(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (_VIT_BLOCK + r"(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (
        _VIT_BLOCK + r"attention\.attention\.(q|k|v)(?:uery|ey|alue)\.(\w+)",
        r"blocks.\1.attn.qkv.\3|\2",
    ),
    (_VIT_BLOCK + r"attention\.(q|k|v)_proj\.(\w+)", r"blocks.\1.attn.qkv.\3|\2"),
    (_VIT_BLOCK + r"attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (_VIT_BLOCK + r"(?:intermediate\.dense|mlp\.weights_in)\.", r"blocks.\1.mlp.fc1."),
    (_VIT_BLOCK + r"(?:output\.dense|mlp\.(?:weights_out|down_proj))\.", r"blocks.\1.mlp.fc2."),
    (_VIT_BLOCK + r"mlp\.(gate|up)_proj\.(\w+)", r"blocks.\1.mlp.fc1.\3|\2"),
    (_VIT_BLOCK + r"mlp\.(fc[12])\.", r"blocks.\1.mlp.\2."),
    (_VIT_BLOCK + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"layernorm\.", "norm."),
)
_PARTS = (("q", "k", "v"), ("gate", "up"))
"""What is stored apart there and as one tensor here, in its order."""
_TOWER = re.compile(r"(embeddings|encoder|layers)\.")
_UNUSED = re.compile(r"embeddings\.(mask_token|position_ids)$")
_HEADS = {
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
}


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """Weights under the names of open_clip or timm.

    Attributes
    ----------
    kind : str
        Class of transformers whose names the file has: ``CLIPModel``, ``SiglipModel``,
        ``ViTModel``, ``DeiTModel``, ``Dinov2Model`` or ``Dinov2WithRegistersModel``.
    state : dict of Tensor
    prefix : str
        What stood before the names.
    note : str
        What of the model could not be had.
    """

    kind: str
    state: State
    prefix: str
    note: str = ""

    @property
    def activation(self) -> str | None:
        """Activation of every model of this kind; CLIP's differ."""
        return {"CLIPModel": None, "SiglipModel": "gelu_tanh"}.get(self.kind, "gelu")

    @property
    def norm_eps(self) -> float:
        """Epsilon of the layer norms that every model of this kind has."""
        return {"CLIPModel": 1e-5, "ViTModel": 1e-12, "DeiTModel": 1e-12}.get(self.kind, 1e-6)


def from_transformers(state: Mapping[str, Tensor]) -> Renamed | None:
    """Recognise transformers' names and rename them; None where they are others."""
    for marker, rename in (
        ("embeddings.patch_embedding.weight", _clip_or_siglip),
        ("embeddings.class_embedding", _clip_or_siglip),
        ("embeddings.patch_embeddings.projection.weight", _vit),
        ("embeddings.position_embeddings", _vit),
    ):
        for name in state:
            if name.endswith(marker) and not name.endswith(f"text_model.{marker}"):
                return rename(state, name.removesuffix(marker))
    return None


def _clip_or_siglip(state: Mapping[str, Tensor], prefix: str) -> Renamed:
    root = prefix.removesuffix("vision_model.")
    own = _under(state, prefix)
    note = _left_out(state, f"{root}classifier.weight")
    if "embeddings.class_embedding" not in own:
        renamed = _renamed(own, _SIGLIP)
        _split_pool(renamed)
        if "pos_embed" in renamed and renamed["pos_embed"].ndim == 2:
            renamed["pos_embed"] = renamed["pos_embed"][None]
        image = {f"visual.trunk.{name}": value for name, value in renamed.items()}
        text = {f"text.{name}": value for name, value in _text(state, root).items()}
        scales = {name: state[root + name] for name in _SCALES if root + name in state}
        return Renamed(kind="SiglipModel", state=image | text | scales, prefix=prefix, note=note)
    visual = _renamed(own, (*_CLIP, *_CLIP_BLOCK))
    if f"{root}visual_projection.weight" in state:
        visual["proj"] = state[f"{root}visual_projection.weight"].T
    full = {f"visual.{name}": value for name, value in visual.items()} | _text(state, root)
    if f"{root}text_projection.weight" in state:
        full["text_projection"] = state[f"{root}text_projection.weight"].T
    full |= {name: state[root + name] for name in _SCALES if root + name in state}
    return Renamed(kind="CLIPModel", state=full, prefix=prefix, note=note)


_SCALES = ("logit_scale", "logit_bias")


def _text(state: Mapping[str, Tensor], root: str) -> State:
    return _renamed(_under(state, f"{root}text_model."), _TEXT)


def _vit(state: Mapping[str, Tensor], prefix: str) -> Renamed:
    renamed = _renamed(_under(state, prefix), _VIT)
    root = prefix.rpartition(".")[0].rpartition(".")[0]
    outside = f"{root}." if root else ""
    kind, note = "ViTModel", ""
    if "dist_token" in renamed:
        kind = "DeiTModel"
    elif "blocks.0.ls1.gamma" in renamed:
        kind = "Dinov2Model"
    if kind == "ViTModel" or f"{outside}cls_classifier.weight" in state:
        for name, ours in _HEADS.items():
            for part in ("weight", "bias"):
                if f"{outside}{name}.{part}" in state:
                    renamed[f"{ours}.{part}"] = state[f"{outside}{name}.{part}"]
    else:
        note = _left_out(state, f"{outside}classifier.weight")
    if "reg_token" in renamed and "pos_embed" in renamed:
        # timm adds no position to the registers, and the class token's once and for all.
        kind = "Dinov2WithRegistersModel"
        positions = renamed["pos_embed"]
        if "cls_token" in renamed:
            renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return Renamed(kind=kind, state=renamed, prefix=prefix, note=note)


def _left_out(state: Mapping[str, Tensor], name: str) -> str:
    """A line about a classifier that reads other tokens than timm's and open_clip's models do."""
    if name not in state:
        return ""
    return f"its classifier of {len(state[name])} classes is left out: it is none of the tower's"


def _under(state: Mapping[str, Tensor], prefix: str) -> State:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _renamed(own: Mapping[str, Tensor], rules: Rules) -> State:
    """Apply the first rule that fits each name; queries, keys and values are put together.

    What no rule knows in the tower keeps its name, for the weights to be refused by.
    """
    renamed: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in own.items():
        for pattern, ours in rules:
            match = re.match(pattern, name)
            if match is not None:
                new = match.expand(ours) + name[match.end() :]
                whole, bar, part = new.partition("|")
                if bar:
                    parts.setdefault(whole, {})[part] = value
                else:
                    renamed[new] = value
                break
        else:
            if _TOWER.match(name) and not _UNUSED.match(name):
                renamed[name] = value
    for whole, found in parts.items():
        # What is incomplete stays out, and is named as missing where the weights are fitted.
        for order in _PARTS:
            if set(found) == set(order):
                renamed[whole] = torch.cat([found[part] for part in order])
    return renamed


def _split_pool(renamed: State) -> None:
    """SigLIP's pooling has one projection for queries, keys and values, timm's has two."""
    for part in ("weight", "bias"):
        whole = renamed.pop(f"attn_pool.{part}", None)
        if whole is not None:
            width = whole.shape[0] // 3
            renamed[f"attn_pool.q.{part}"] = whole[:width]
            renamed[f"attn_pool.kv.{part}"] = whole[width:]
