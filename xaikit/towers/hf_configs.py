"""What transformers' config.json says of a vision transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaikit.errors import XaikitError
from xaikit.towers.hf_processors import crop_of
from xaikit.towers.settings import Settings
from xaikit.towers.spec import ModelSpec

_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_BASE: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_VIT = _BASE | {"intermediate_size": 3072, "image_size": 224, "patch_size": 16}
_VIT = _VIT | {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True}
_DINO = _VIT | {"layer_norm_eps": 1e-6, "patch_size": 14, "mlp_ratio": 4, "use_swiglu_ffn": False}
_SIGLIP = _VIT | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_CLIP = _VIT | {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "patch_size": 32}
DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "vit": _VIT,
    "deit": _VIT,
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO | {"num_register_tokens": 4, "patch_size": 16},
}
"""Defaults of the configs, which transformers leaves out when it writes them."""


def vision_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part about the vision tower, with defaults filled in; None for other models."""
    defaults = DEFAULTS.get(str(config.get("model_type")))
    if defaults is None:
        return None
    own = config.get("vision_config", config)
    return defaults | {name: value for name, value in dict(own).items() if value is not None}


def model_settings(config: Mapping[str, Any]) -> Settings:
    """Activation and norm of a model, as its config has them."""
    vision = vision_config(config) or {}
    activation = _ACTIVATIONS.get(vision.get("hidden_act", ""))
    found: Settings = {"norm_eps": float(vision["layer_norm_eps"])} if vision else {}
    if activation is not None and not vision.get("use_swiglu_ffn"):
        found["activation"] = activation
    return found


def spec_of(name: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> ModelSpec:
    """The open_clip or timm model that computes what a model of transformers does.

    Raises
    ------
    XaikitError
        If the model is of another kind, or has an activation of its own.
    """
    kind, vision = str(config.get("model_type")), vision_config(config)
    if vision is None:
        raise XaikitError(
            f"{name}: transformers' {kind} is none of {', '.join(sorted(DEFAULTS))}; xaikit reads "
            "the attention of plain vision transformers"
        )
    if vision["hidden_act"] not in _ACTIVATIONS:
        raise XaikitError(f"{name}: the activation {vision['hidden_act']!r} is none xaikit knows")
    if kind.startswith("clip"):
        return ModelSpec(
            name=name, family="open_clip", config=_open_clip(config, vision), registered=False
        )
    options: dict[str, Any] = {
        "img_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embed_dim": vision["hidden_size"],
        "depth": vision["num_hidden_layers"],
        "num_heads": vision["num_attention_heads"],
        "qkv_bias": vision["qkv_bias"],
        "num_classes": 0,
    }
    architecture = "vit_base_patch16_siglip_224"
    if kind.startswith("dinov2"):
        architecture = _dinov2(vision, processor, options)
    else:
        options["mlp_ratio"] = _ratio(vision["intermediate_size"], vision["hidden_size"])
    if kind == "vit":
        architecture = "vit_base_patch16_224"
    elif kind == "deit":
        # transformers has no DeiT without a distillation token.
        architecture = "deit_base_distilled_patch16_224"
    elif kind.startswith("siglip") and not vision.get("vision_use_head", True):
        options |= {"global_pool": "avg", "fc_norm": False}
    return ModelSpec(
        name=name, family="timm", architecture=architecture, options=options, registered=False
    )


def _dinov2(
    vision: Mapping[str, Any], processor: Mapping[str, Any], options: dict[str, Any]
) -> str:
    crop = crop_of(processor)
    if crop is not None and crop % vision["patch_size"] == 0:
        # DINOv2 is trained at 518 pixels and used at what its processor crops to.
        options["img_size"] = crop
    width, registers = vision["hidden_size"], int(vision.get("num_register_tokens", 0))
    options["mlp_ratio"] = vision["mlp_ratio"]
    size = "base"
    if vision["use_swiglu_ffn"]:
        hidden = (int(int(width * vision["mlp_ratio"]) * 2 / 3) + 7) // 8 * 8
        options["mlp_ratio"] = _ratio(2 * hidden, width)
        size = "giant"
    if registers:
        options["reg_tokens"] = registers
        return f"vit_{size}_patch14_reg4_dinov2"
    return f"vit_{size}_patch14_dinov2"


def _ratio(hidden: int, width: int) -> float:
    # The libraries multiply by the width and cut, which would lose 1 to rounding.
    return (hidden + 0.5) / width


def _open_clip(config: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    text = dict(config.get("text_config") or {})
    width = text.get("hidden_size", 512)
    return {
        "embed_dim": config.get("projection_dim", vision.get("projection_dim", 512)),
        "vision_cfg": {
            "image_size": vision["image_size"],
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "patch_size": vision["patch_size"],
            "mlp_ratio": _ratio(vision["intermediate_size"], vision["hidden_size"]),
        },
        "text_cfg": {
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "width": width,
            "heads": text.get("num_attention_heads", 8),
            "layers": text.get("num_hidden_layers", 12),
            "mlp_ratio": _ratio(text.get("intermediate_size", 2048), width),
        },
        "quick_gelu": _ACTIVATIONS[vision["hidden_act"]] == "quick_gelu",
    }
