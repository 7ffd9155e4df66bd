"""The model side: find the parts of a vision tower, read them, and edit its attention.

Names are looked up when first used: reading and editing a tower needs torch alone, and only
finding and loading one needs timm and open_clip, which take seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xaikit.towers.capture import AttentionTap, FfnTap, capture, tapping
from xaikit.towers.edit import BlockCache, Edit, editing
from xaikit.towers.families import BlockParts, Outputs
from xaikit.towers.finite import ImageNames, require_finite_call, require_finite_logits
from xaikit.towers.interception import AttentionCall
from xaikit.towers.selfcheck import CheckResult, believe, noise, self_check

if TYPE_CHECKING:
    from xaikit.towers.device import pick_device
    from xaikit.towers.info import TowerInfo
    from xaikit.towers.loading import load_tower
    from xaikit.towers.reduced import build_for_check
    from xaikit.towers.registry import ModelRow, describe, list_models, resolve
    from xaikit.towers.text import TextSide, ZeroShot, text_features, zero_shot
    from xaikit.towers.tower import Tower, wrap_tower

__all__ = [
    "AttentionCall",
    "AttentionTap",
    "BlockCache",
    "BlockParts",
    "CheckResult",
    "Edit",
    "FfnTap",
    "ImageNames",
    "ModelRow",
    "Outputs",
    "TextSide",
    "Tower",
    "TowerInfo",
    "ZeroShot",
    "believe",
    "build_for_check",
    "capture",
    "describe",
    "editing",
    "list_models",
    "load_tower",
    "noise",
    "pick_device",
    "require_finite_call",
    "require_finite_logits",
    "resolve",
    "self_check",
    "tapping",
    "text_features",
    "wrap_tower",
    "zero_shot",
]

_HOMES = {
    "ModelRow": "registry",
    "TextSide": "text",
    "Tower": "tower",
    "TowerInfo": "info",
    "ZeroShot": "text",
    "build_for_check": "reduced",
    "describe": "registry",
    "list_models": "registry",
    "load_tower": "loading",
    "pick_device": "device",
    "resolve": "registry",
    "text_features": "text",
    "wrap_tower": "tower",
    "zero_shot": "text",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
