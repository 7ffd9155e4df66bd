"""What transformers' config.json and preprocessor_config.json say of a vision transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaikit.errors import XaikitError
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
    "dinov2_with_registers": _DINO | {"num_register_tokens": 4},
}
"""Defaults of the configs, which transformers leaves out when it writes them."""
_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}


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


def processor_settings(processor: Mapping[str, Any], image_size: tuple[int, int]) -> Settings:
    """How transformers' image processor prepares images.

    Parameters
    ----------
    processor : mapping
        A ``preprocessor_config.json``.
    image_size : tuple of int
        (height, width) that the tower takes; a resize is scaled where the processor crops to
        another size.
    """
    found: Settings = {}
    if processor.get("do_normalize", True):
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if isinstance(processor.get(theirs), list):
                found[ours] = tuple(float(value) for value in processor[theirs])
    else:
        found |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if processor.get("resample") in _RESAMPLE:
        found["interpolation"] = _RESAMPLE[processor["resample"]]
    size, crop = processor.get("size"), _side(processor.get("crop_size"))
    shorter = _side(size)
    squashes = isinstance(size, dict) and "height" in size
    if isinstance(size, int):
        squashes = not processor.get("do_center_crop", crop is not None)
    if size is not None and squashes:
        found["mode"] = "squash"
    elif shorter is not None:
        found["mode"] = "shortest"
        resize = round(shorter * min(image_size) / (crop or shorter))
        found["resize"] = None if resize <= min(image_size) else resize
    return found


def crop_of(processor: Mapping[str, Any]) -> int | None:
    """Side of the picture that a processor hands to its model."""
    return _side(processor.get("crop_size")) or _side(processor.get("size"))


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) and not isinstance(size, bool) else None


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
        distilled = any("Teacher" in str(each) for each in config.get("architectures") or [])
        distilled = distilled or "DeiTModel" in (config.get("architectures") or [])
        architecture = f"deit_base_{'distilled_' if distilled else ''}patch16_224"
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
