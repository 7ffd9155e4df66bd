"""Where settings of a model's weights are found: tags, configs beside a file, built modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from timm.data.config import resolve_model_data_config
from timm.models import get_pretrained_cfg as timm_cfg
from torch import nn

from xaikit.errors import UsageError
from xaikit.towers.folders import CONFIG, OPEN_CLIP_CONFIG, read_json
from xaikit.towers.hf_configs import model_settings, vision_config
from xaikit.towers.hf_processors import (
    PROCESSOR,
    WHOLE_PROCESSOR,
    image_processor,
    processor_settings,
)
from xaikit.towers.settings import Settings, of_open_clip, of_timm
from xaikit.towers.spec import ModelSpec


def tags_of(spec: ModelSpec) -> list[str]:
    """Pretrained tags of a model's name."""
    if not spec.registered:
        return []
    if spec.family == "timm":
        names = timm.list_pretrained(f"{spec.timm_name}.*")
        return [name.partition(".")[2] for name in names]
    return list(open_clip.list_pretrained_tags_by_model(spec.name))


def tag_config(spec: ModelSpec, tag: str) -> dict[str, Any] | None:
    """Library's own settings of a tag; None where the name has no such tag."""
    if not spec.registered:
        return None
    if spec.family == "timm":
        if tag not in tags_of(spec):
            return None
        found = timm_cfg(f"{spec.timm_name}.{tag}")
        return dict(found.to_dict()) if found is not None else {}
    # open_clip itself reads laion2B-s34B-b79K as laion2b_s34b_b79k.
    settings = open_clip.get_pretrained_cfg(spec.name, tag)
    return dict(settings) if settings or tag in tags_of(spec) else None


def tag_settings(spec: ModelSpec, tag: str, image_size: tuple[int, int]) -> Settings:
    """Settings of a tag.

    Raises
    ------
    UsageError
        If the name has no such tag; the message names some.
    """
    config = tag_config(spec, tag)
    if config is None:
        some = ", ".join(tags_of(spec)[:6]) or "none"
        raise UsageError(f"`like_tag={tag}`: {spec.name} has no such tag; it has {some}")
    if spec.family == "timm":
        return of_timm(config, image_size)
    # What a tag leaves out is open_clip's default.
    settings = of_open_clip(merge_preprocess_dict(PreprocessCfg(), {}))
    settings |= of_open_clip({"quick_gelu": False} | config)
    if spec.timm_name is not None:
        # open_clip's flag says nothing of a trunk of timm.
        settings.pop("activation", None)
    return settings


def module_settings(module: nn.Module, family: str, image_size: tuple[int, int]) -> Settings:
    """Settings that a built module carries: open_clip's `preprocess_cfg`, timm's data config."""
    if family == "open_clip":
        return of_open_clip(getattr(module, "preprocess_cfg", None) or {})
    config = getattr(module, "pretrained_cfg", None) or {}
    if not config.get("mean"):
        return {}
    return of_timm(resolve_model_data_config(module), image_size)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What configs beside a file of weights say.

    Attributes
    ----------
    file : str
        Name of the config.
    settings : dict
    sizes : dict
        Width and layers, where the config has them.
    """

    file: str
    settings: Settings = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def beside(path: Path, image_size: tuple[int, int]) -> list[Beside]:
    """Configs in the folder of a file, the one that belongs to it by name first."""
    order = (CONFIG, OPEN_CLIP_CONFIG)
    if path.name.startswith("open_clip"):
        order = (OPEN_CLIP_CONFIG, CONFIG)
    found = []
    for name in order:
        config = path.parent / name
        if config.is_file():
            try:
                found.append(_read(config, image_size))
            except UsageError:
                # A stray file of that name; what is then unknown is said as ever.
                continue
    return [each for each in found if each is not None]


def _read(path: Path, image_size: tuple[int, int]) -> Beside | None:
    config = read_json(path)
    if path.name == OPEN_CLIP_CONFIG:
        return _open_clip(path.name, config)
    if vision_config(config) is not None:
        return _transformers(path, config, image_size)
    if "architecture" in config or "pretrained_cfg" in config:
        own: Mapping[str, Any] = config.get("pretrained_cfg") or config
        return Beside(file=path.name, settings=of_timm(own, image_size))
    return None


def _open_clip(name: str, config: Mapping[str, Any]) -> Beside | None:
    model = config.get("model_cfg")
    if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict):
        return None
    vision = model["vision_cfg"]
    settings = of_open_clip(config.get("preprocess_cfg") or {})
    sizes = {}
    if "timm_model_name" not in vision:
        settings |= of_open_clip({"quick_gelu": bool(model.get("quick_gelu", False))})
        sizes = {
            key: vision[key] for key in ("width", "layers") if isinstance(vision.get(key), int)
        }
    return Beside(file=name, settings=settings, sizes=sizes)


def _transformers(
    path: Path, config: Mapping[str, Any], image_size: tuple[int, int]
) -> Beside | None:
    vision = vision_config(config) or {}
    settings = model_settings(config)
    files = [path.with_name(name) for name in (WHOLE_PROCESSOR, PROCESSOR)]
    whole, alone = (read_json(file) if file.is_file() else None for file in files)
    settings |= processor_settings(image_processor(whole, alone), image_size)
    sizes = {"width": vision["hidden_size"], "layers": vision["num_hidden_layers"]}
    return Beside(file=path.name, settings=settings, sizes=sizes)
