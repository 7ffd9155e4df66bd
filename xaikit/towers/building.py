"""Building a vision tower alone, with memory or without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from open_clip.model import _build_vision_tower
from torch import nn
from torch.overrides import TorchFunctionMode

from xaikit.towers.spec import ModelSpec

_FILLS = frozenset(
    [
        "add_",
        "clamp_",
        "constant_",
        "copy_",
        "div_",
        "erfinv_",
        "fill_",
        "kaiming_uniform_",
        "mul_",
        "normal_",
        "uniform_",
        "zero_",
    ]
)


def build_module(spec: ModelSpec, *, layers: int | None = None) -> nn.Module:
    """Build the vision tower alone, with the weights its constructor draws.

    Parameters
    ----------
    spec : ModelSpec
    layers : int, optional
        Blocks, in place of the config's own number (open_clip's native towers).
    """
    if spec.family == "timm":
        return timm.create_model(str(spec.timm_name), pretrained=False, **spec.options)
    vision = dict(spec.config["vision_cfg"])
    if spec.timm_name is not None:
        # The trunk's own ImageNet weights would be a download.
        vision["timm_model_pretrained"] = False
    elif layers is not None:
        vision["layers"] = layers
    quick_gelu = bool(spec.config.get("quick_gelu", False))
    visual: nn.Module = _build_vision_tower(spec.config["embed_dim"], vision, quick_gelu)
    return visual


class _SkipFills(TorchFunctionMode):
    """Leaves out the initialisation of weights, which costs seconds even without memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Build modules without memory: every tensor has a shape and no content."""
    with torch.device("meta"), _SkipFills():
        yield
