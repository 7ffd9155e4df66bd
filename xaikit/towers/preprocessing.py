"""The preprocessing that belongs to a model and its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError

Triple = tuple[float, float, float]


def open_clip_preprocess(
    image_size: tuple[int, int], *settings: Mapping[str, Any] | None
) -> Preprocess:
    """Preprocessing of an open_clip model: its defaults, overlaid as open_clip overlays them.

    Parameters
    ----------
    image_size : tuple of int
        (height, width) that the vision tower takes.
    *settings : mapping, optional
        A config file's `preprocess_cfg`, a pretrained tag's settings; later ones win.
    """
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    merged = merge_preprocess_dict(PreprocessCfg(), {})
    for overlay in settings:
        merged = merge_preprocess_dict(merged, dict(overlay or {}))
    return Preprocess(
        size=image_size,
        mean=_triple(merged["mean"]),
        std=_triple(merged["std"]),
        mode=merged["resize_mode"],
        interpolation=_interpolation(merged["interpolation"]),
        fill=merged["fill_color"],
    )


def timm_preprocess(module: nn.Module, image_size: tuple[int, int]) -> Preprocess:
    """Preprocessing of a timm model, from its own data config.

    timm resizes the shorter side to ``floor(size / crop_pct)`` before the centre crop.
    """
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    squash = config.get("crop_mode") == "squash"
    resize = math.floor(min(image_size) / config["crop_pct"])
    return Preprocess(
        size=image_size,
        mean=_triple(config["mean"]),
        std=_triple(config["std"]),
        resize=None if squash or resize == min(image_size) else resize,
        mode="squash" if squash else "shortest",
        interpolation=_interpolation(config["interpolation"]),
    )


def override(
    preprocess: Preprocess,
    *,
    mean: Triple | None = None,
    std: Triple | None = None,
    resize: int | None = None,
) -> Preprocess:
    """Replace what the user gave.

    Raises
    ------
    UsageError
        If mean or std are not three numbers (std above 0), or `resize` is under the crop.
    """
    if mean is not None:
        preprocess = replace(preprocess, mean=_checked("mean", mean))
    if std is not None:
        if min(std, default=0) <= 0:
            raise UsageError(f"std must be three numbers above 0, not {list(std)}")
        preprocess = replace(preprocess, std=_checked("std", std))
    if resize is not None:
        if resize < min(preprocess.size):
            raise UsageError(
                f"resize {resize} is smaller than the model's input, {min(preprocess.size)} pixels"
            )
        preprocess = replace(preprocess, resize=resize)
    return preprocess


def _checked(what: str, values: Triple) -> Triple:
    if len(values) != 3:
        raise UsageError(f"{what} must be three numbers, one per channel, not {list(values)}")
    return _triple(values)


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _interpolation(name: str) -> str:
    # timm and open_clip train with random interpolation in places; they evaluate with bicubic.
    return "bicubic" if name == "random" else name
