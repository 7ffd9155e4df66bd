"""Towers small enough to compute by hand, with logits that spread."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from xaikit.errors import XaikitWarning
from xaikit.towers import Tower, capture, load_tower, wrap_tower

SIZE = 16
TOKENS = 17
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8))
"""Noise, wide enough for every way to resize and to crop to differ."""


def spread(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill a module with weights that leave no bias, norm or layer scale trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            centre = 0.0 if "bias" in name else 1.0
            parameter.data = centre + 0.2 * noise
        else:
            parameter.data = 1.5 * noise * parameter[0].numel() ** -0.5
    return module


def quietly(*args: Any, **options: Any) -> Tower:
    """Load where everything is known: a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", XaikitWarning)
        return load_tower(*args, **options)


def logits_of(tower: Tower, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Attention logits of all layers."""
    found: dict[int, torch.Tensor] = {}
    taps = {n: lambda call, n=n: found.update({n: call.logits()}) for n in range(tower.info.layers)}
    capture(tower, pixels, attention=taps)
    return [found[layer] for layer in sorted(found)]


def native_tower(**options: Any) -> Tower:
    from open_clip.transformer import VisionTransformer

    settings: dict[str, Any] = {
        "image_size": SIZE,
        "patch_size": 4,
        "width": 32,
        "layers": 4,
        "heads": 2,
        "mlp_ratio": 2.0,
        "output_dim": 8,
    }
    module = VisionTransformer(**(settings | options))
    return wrap_tower(spread(module), model="small-native")


def timm_tower(**options: Any) -> Tower:
    from timm.models.vision_transformer import VisionTransformer

    settings: dict[str, Any] = {
        "img_size": SIZE,
        "patch_size": 4,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 2,
        "mlp_ratio": 2.0,
    }
    module = VisionTransformer(**(settings | {"qk_norm": True, "num_classes": 5} | options))
    return wrap_tower(spread(module), model="small-timm", family="timm")


def eva_tower(**options: Any) -> Tower:
    from timm.models.eva import Eva

    settings: dict[str, Any] = {
        "img_size": SIZE,
        "patch_size": 4,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 2,
        "mlp_ratio": 2.0,
    }
    settings |= {
        "num_classes": 0,
        "use_rot_pos_emb": True,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "qkv_fused": False,
    }
    module = Eva(**(settings | options))
    return wrap_tower(spread(module), model="small-eva", family="timm")


MAKERS: dict[str, Callable[..., Tower]] = {
    "native": native_tower,
    "timm": timm_tower,
    "eva": eva_tower,
}


SMALL_CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": SIZE, "layers": 3, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small CLIP that open_clip knows by name for the length of a test."""
    import open_clip.factory

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-clip", SMALL_CONFIG)
    return "small-clip"


@pytest.fixture(params=sorted(MAKERS))
def tower(request: pytest.FixtureRequest) -> Tower:
    """One small tower of each kind of attention module."""
    return MAKERS[request.param]()


@pytest.fixture
def native() -> Tower:
    """A small native tower, whose attention is nn.MultiheadAttention."""
    return native_tower()


@pytest.fixture
def make() -> dict[str, Callable[..., Tower]]:
    """The makers of small towers, for those that need options."""
    return MAKERS


@pytest.fixture
def pixels() -> torch.Tensor:
    """Three images of noise ``[3, 3, 16, 16]``."""
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def is_clean(tower: Tower) -> bool:
    """Whether no hook, override or patch is left behind."""
    import torch.nn.functional as F

    modules = list(tower.module.modules())
    return (
        F.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention
        and not any("forward" in module.__dict__ for module in modules)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    )


@pytest.fixture
def clean() -> Callable[[Tower], bool]:
    """The check that nothing is left behind on a tower."""
    return is_clean
