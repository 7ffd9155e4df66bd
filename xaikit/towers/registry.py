"""Which models there are, which family each belongs to, and why some are refused."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import timm
from timm.models import is_model_in_modules

from xaikit import demo
from xaikit.errors import UsageError, XaikitError
from xaikit.towers.building import build_module, on_meta
from xaikit.towers.families import FAMILIES, refuse
from xaikit.towers.folders import (
    CONFIG,
    HUB,
    LOCAL,
    OPEN_CLIP_CONFIG,
    Folder,
    folder_of,
    read_json,
    unavailable,
)
from xaikit.towers.hf_configs import spec_of
from xaikit.towers.hf_processors import PROCESSOR, WHOLE_PROCESSOR, image_processor
from xaikit.towers.info import TowerInfo, tower_info
from xaikit.towers.spec import DEMO, TIMM_PREFIX, ModelSpec

PLAIN_TIMM = frozenset(
    {
        "beit",
        "deit",
        "eva",
        "vision_transformer",
        "vision_transformer_hybrid",
        "vision_transformer_relpos",
    }
)
"""Modules of timm whose models are plain vision transformers."""
REASONS = {
    "convnext": "ConvNeXt is convolutional and has no attention",
    "fastvit": "FastViT is made of convolution stages and has no plain transformer blocks",
    "swin_transformer": "Swin attends within shifted windows, so its tokens share no attention map",
    "vitamin": "ViTamin puts convolution stages in front of blocks of its own kind",
    "resnet": "ResNet is convolutional and has no attention",
}


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One line of ``xaikit models``; sizes are None where the model is refused."""

    name: str
    family: str
    supported: bool
    reason: str = ""
    layers: int | None = None
    heads: int | None = None
    tokens: int | None = None
    prefix_tokens: int | None = None
    width: int | None = None
    ffn_width: int | None = None
    image_size: tuple[int, int] | None = None


def resolve(model: str) -> ModelSpec:
    """Find a model by name, config file or folder.

    Parameters
    ----------
    model : str
        An open_clip name, ``xaikit-demo``, ``timm/NAME``, the path of an open_clip model config
        (``.json``), ``hf-hub:ORG/NAME``, ``local-dir:PATH`` or the path of a folder.

    Raises
    ------
    UsageError
        If there is no such model; the message names the closest ones.
    """
    if model.startswith((HUB, LOCAL)):
        return _resolve_folder(folder_of(model))
    if model.endswith(".json"):
        return _resolve_file(Path(model))
    if model.startswith(TIMM_PREFIX):
        return _resolve_timm(model)
    if model == DEMO:
        demo.register()
    # open_clip itself takes ViT-B/32 for ViT-B-32.
    name = model.replace("/", "-")
    config = open_clip.get_model_config(name) if ":" not in name else None
    if config is not None:
        return ModelSpec(name=name, family="open_clip", config=config)
    folder = folder_of(model)
    if folder is None:
        raise UsageError(_unknown(model, [DEMO, *open_clip.list_models()]))
    return _resolve_folder(folder)


def _resolve_file(path: Path) -> ModelSpec:
    return _described_by_open_clip(str(path), read_json(path), f"model config {path}", None)


def _described_by_open_clip(
    name: str, config: dict[str, Any], what: str, folder: Folder | None
) -> ModelSpec:
    inner = config.get("model_cfg", config)
    if not isinstance(inner, dict) or not isinstance(inner.get("vision_cfg"), dict):
        inner = {}
    if "embed_dim" not in inner:
        raise UsageError(f"{what} is no open_clip model config: embed_dim and vision_cfg expected")
    return ModelSpec(
        name=name,
        family="open_clip",
        config=inner,
        preprocess=config.get("preprocess_cfg") or {},
        registered=False,
        folder=folder,
    )


def _resolve_folder(folder: Folder | None) -> ModelSpec:
    assert folder is not None
    own = folder.config(OPEN_CLIP_CONFIG)
    if own is not None:
        what = f"{folder.name}: {OPEN_CLIP_CONFIG}"
        return _described_by_open_clip(folder.name, own, what, folder)
    config = folder.config(CONFIG)
    if config is None and folder.root is None:
        raise unavailable(folder)
    if config is None:
        raise UsageError(
            f"{folder.name} has neither {OPEN_CLIP_CONFIG} nor {CONFIG}, so nothing says which "
            f"model it is: name the model with `model=` and pass the folder as `pretrained=`"
        )
    if "model_type" in config:
        processor = image_processor(folder.config(WHOLE_PROCESSOR), folder.config(PROCESSOR))
        return replace(
            spec_of(folder.name, config, processor),
            preprocess={"config": config, "processor": processor},
            dialect="transformers",
            folder=folder,
        )
    return _described_by_timm(folder, config)


def _described_by_timm(folder: Folder, config: dict[str, Any]) -> ModelSpec:
    own = config.get("pretrained_cfg") or config
    architecture = str(config.get("architecture", "")).partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(
            f"{folder.name}: {CONFIG} names no model of timm, open_clip or transformers that is "
            f"known here ({architecture or 'no architecture'})"
        )
    options = dict(config.get("model_args") or {})
    classes = config.get("num_classes", own.get("num_classes"))
    if isinstance(classes, int):
        options["num_classes"] = classes
    if config.get("global_pool") is not None:
        options["global_pool"] = config["global_pool"]
    return ModelSpec(
        name=folder.name,
        family="timm",
        preprocess=dict(own),
        dialect="timm",
        registered=False,
        architecture=architecture,
        options=options,
        folder=folder,
    )


def _resolve_timm(model: str) -> ModelSpec:
    name, _, tag = model.removeprefix(TIMM_PREFIX).partition(".")
    if not timm.is_model(name):
        known = [TIMM_PREFIX + other for other in timm.list_models()]
        raise UsageError(_unknown(model, known))
    return ModelSpec(name=TIMM_PREFIX + name, family="timm", tag=tag or None)


def _unknown(model: str, known: list[str]) -> str:
    close = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return (
        f"unknown model {model!r}: {hint}`xaikit models` lists the names; timm/NAME, "
        "hf-hub:ORG/NAME, local-dir:PATH and the path of an open_clip model config (.json) work "
        "too"
    )


def refusal(spec: ModelSpec) -> str | None:
    """Say why a model is refused, or None.

    Decided from names and configs alone, so that refusing costs nothing. A model that passes can
    still be refused when its blocks are looked at, or by the self-check.
    """
    if spec.timm_name is not None:
        name = spec.timm_name
        if not timm.is_model(name):
            return f"the installed timm has no {name}"
        if is_model_in_modules(name, PLAIN_TIMM):
            return None
        for module, reason in REASONS.items():
            if is_model_in_modules(name, [module]):
                return reason
        return f"timm's {name} is no plain vision transformer"
    if isinstance(spec.config["vision_cfg"].get("layers", 12), (list, tuple)):
        return "ModifiedResNet has no transformer blocks"
    return None


def require_supported(spec: ModelSpec) -> None:
    """Raise an XaikitError, one line that names the reason, unless the model is supported."""
    reason = refusal(spec)
    if reason is not None:
        raise refuse(spec.name, reason)


def describe(spec: ModelSpec) -> TowerInfo:
    """Sizes of a supported model, from its structure and without its weights.

    Raises
    ------
    XaikitError
        If the model is refused.
    """
    require_supported(spec)
    with on_meta():
        module = build_module(spec, layers=1)
    blocks = FAMILIES[spec.family].blocks(module, spec.name)
    info = tower_info(module, blocks, model=spec.name, family=spec.family)
    if spec.timm_name is not None:
        return info
    return replace(info, layers=spec.config["vision_cfg"].get("layers", 12))


@lru_cache(maxsize=1)
def _timm_cache() -> dict[str, TowerInfo]:
    return {}


def _described(spec: ModelSpec) -> TowerInfo:
    # Dozens of open_clip names share a timm trunk, and building one, even empty, takes a while.
    if spec.timm_name is None:
        return describe(spec)
    cache = _timm_cache()
    if spec.timm_name not in cache:
        cache[spec.timm_name] = describe(spec)
    return cache[spec.timm_name]


def model_row(model: str) -> ModelRow:
    """One line of ``xaikit models``."""
    spec = resolve(model)
    family = "timm" if spec.timm_name is not None else "native"
    try:
        require_supported(spec)
        info = _described(spec)
    except XaikitError as error:
        reason = str(error).removeprefix(f"{spec.name}: ").split(";")[0]
        return ModelRow(name=spec.name, family=family, supported=False, reason=reason)
    sizes = ("layers", "heads", "tokens", "prefix_tokens", "width", "ffn_width", "image_size")
    return ModelRow(
        name=spec.name,
        family=family,
        supported=True,
        **{size: getattr(info, size) for size in sizes},
    )


def list_models() -> list[ModelRow]:
    """Describe the demo model and every model that open_clip knows.

    Returns
    -------
    list of ModelRow
        The demo first, then open_clip's names in its own order, refused ones included.
    """
    names = [name for name in open_clip.list_models() if name != DEMO]
    return [model_row(name) for name in (DEMO, *names)]
