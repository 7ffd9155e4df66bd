"""The model side: find the parts of a vision tower, read them, and edit its attention."""

from __future__ import annotations

from xaikit.towers.capture import AttentionTap, FfnTap, capture, tapping
from xaikit.towers.device import pick_device
from xaikit.towers.edit import BlockCache, Edit, editing
from xaikit.towers.families import BlockParts, Outputs
from xaikit.towers.interception import AttentionCall
from xaikit.towers.loading import load_tower
from xaikit.towers.registry import ModelRow, describe, list_models, resolve
from xaikit.towers.selfcheck import CheckResult, believe, build_for_check, noise, self_check
from xaikit.towers.text import TextSide, ZeroShot, text_features, zero_shot
from xaikit.towers.tower import Tower, TowerInfo, wrap_tower

__all__ = [
    "AttentionCall",
    "AttentionTap",
    "BlockCache",
    "BlockParts",
    "CheckResult",
    "Edit",
    "FfnTap",
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
    "resolve",
    "self_check",
    "tapping",
    "text_features",
    "wrap_tower",
    "zero_shot",
]
