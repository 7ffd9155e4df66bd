"""How transformers' image processors prepare images, as their configs say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaikit.errors import UsageError
from xaikit.towers.settings import Settings

PROCESSOR, WHOLE_PROCESSOR = "preprocessor_config.json", "processor_config.json"
"""Configs of an image processor, and of a processor of images and texts that has one inside."""
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_KEEP_ASPECT = ("CLIP", "Bit", "Siglip", "ConvNext")
_SQUASH = ("ViT", "DeiT", "Beit")
"""Processors whose size, where it is one number, is the shorter side, and both sides."""


def image_processor(
    whole: Mapping[str, Any] | None, alone: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """The image processor's config: from a whole processor's first, as transformers reads them."""
    inner = (whole or {}).get("image_processor")
    return inner if isinstance(inner, dict) else alone or {}


def processor_settings(processor: Mapping[str, Any], image_size: tuple[int, int]) -> Settings:
    """How transformers' image processor prepares images.

    Parameters
    ----------
    processor : mapping
        A ``preprocessor_config.json``.
    image_size : tuple of int
        (height, width) that the tower takes; a resize is scaled where the processor crops to
        another size.

    Raises
    ------
    UsageError
        If it resizes in a way that is none of xaikit's.
    """
    found = _normalisation(processor) | {"crop": "floor"}
    resample = processor.get("resample")
    if resample is not None:
        if resample not in _RESAMPLE:
            raise UsageError(f"{PROCESSOR}: resample {resample!r} is no filter of Pillow")
        found["interpolation"] = _RESAMPLE[resample]
    size = processor.get("size")
    if size is None:
        return found if processor else {}
    shorter, crop = _side(size), _side(processor.get("crop_size"))
    if shorter is None or processor.get("do_resize") is False:
        raise UsageError(
            f"{PROCESSOR}: size {size} with do_resize {processor.get('do_resize', True)} gives "
            "pictures of no fixed size"
        )
    if processor.get("do_center_crop") is False:
        crop = None
    found["mode"] = "squash" if _squashes(processor, size, crop) else "shortest"
    resize = round(shorter * min(image_size) / (crop or shorter))
    found["resize"] = None if resize <= min(image_size) else resize
    return found


def _normalisation(processor: Mapping[str, Any]) -> Settings:
    """Mean and std of pixels between 0 and 1, whatever the processor scales them to."""
    means, stds = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", True):
        means, stds = [0.0] * 3, [1.0] * 3
    factor = processor.get("rescale_factor")
    scale = 255 * factor if isinstance(factor, (int, float)) and factor > 0 else 1.0
    if processor.get("do_rescale") is False:
        scale = 255.0
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    found: Settings = {}
    for ours, values in (("mean", means), ("std", stds)):
        if isinstance(values, list):
            found[ours] = tuple(float(value) / scale for value in values)
    return found


def _squashes(processor: Mapping[str, Any], size: Any, crop: int | None) -> bool:
    if isinstance(size, dict):
        return "height" in size
    kind = str(processor.get("image_processor_type", processor.get("feature_extractor_type", "")))
    if kind.startswith((*_KEEP_ASPECT, *_SQUASH)):
        return kind.startswith(_SQUASH)
    return not processor.get("do_center_crop", crop is not None)


def crop_of(processor: Mapping[str, Any]) -> int | None:
    """Side of the picture that a processor hands to its model."""
    return _side(processor.get("crop_size")) or _side(processor.get("size"))


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) and not isinstance(size, bool) else None
