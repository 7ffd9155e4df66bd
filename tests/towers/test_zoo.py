"""Every supported name, at its real width and tokens: what is read is what the model computes."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch

from xaikit.towers import build_for_check, describe, noise, resolve, self_check, tapping
from xaikit.towers.registry import refusal

FAST = {
    "coca_ViT-B-32",
    "EVA02-B-16",
    "MobileCLIP-B",
    "PE-Core-T-16-384",
    "ViT-B-32-SigLIP2-256",
    "ViT-S-16",
    "vit_medium_patch16_gap_256",
    "vit_relpos_medium_patch16_cls_224",
}
_checked: dict[str, str] = {}
TIMM = [
    "aimv2_large_patch14_224",
    "beit_base_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_base_patch16_rope_mixed_224",
    "vit_pwee_patch16_reg1_gap_256",
    "vit_small_patch16_dinov3",
    "vit_small_patch14_reg4_dinov2",
    "vit_srelpos_small_patch16_224",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
]


def supported():
    names = [name for name in open_clip.list_models() if refusal(resolve(name)) is None]
    return [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in names
        if name != "xaikit-demo"
    ]


def test_a_hundred_and_one_names_are_supported():
    names = [name for name in open_clip.list_models() if name != "xaikit-demo"]
    kept = [name for name in names if refusal(resolve(name)) is None]
    assert len(kept) >= 101
    assert len(names) - len(kept) >= 43


def check(name):
    layers = 1 if describe(resolve(name)).width >= 1280 else 2
    tower = build_for_check(name, layers=layers)
    info, seen = tower.info, {}

    def ffn(h_l, gate):
        seen["h_l"], seen["gate"] = h_l, gate

    parts = tower.blocks[0]
    hook = parts.activation.register_forward_hook(lambda _m, _a, out: seen.update(out=out))
    pixels = noise(tower)
    taps = {layers - 1: lambda call: seen.update(logits=call.logits())}
    with tapping(tower, ffn={0: ffn}, attention=taps):
        result = self_check(tower, pixels=pixels)
    hook.remove()
    assert result.passed, result.describe()
    assert result.edit_error < 1e-5
    assert 0 < max(result.errors.values()) < 1e-5
    assert seen["h_l"].shape == (1, info.tokens, info.width)
    assert seen["gate"].shape == (1, info.tokens, info.ffn_width)
    assert torch.equal(seen["gate"], seen["out"] > 0)
    assert 0.05 < seen["gate"].float().mean() < 0.95
    assert seen["logits"].shape == (1, info.heads, info.tokens, info.tokens)
    assert seen["logits"].std(dim=-1).mean() > 0.5


@pytest.mark.parametrize("name", supported())
def test_the_model_is_read_and_edited_truly(name):
    config = resolve(name).config
    vision = json.dumps([config["vision_cfg"], config["embed_dim"], config.get("quick_gelu")])
    # Names that differ only in their text tower or their weights share one vision tower.
    if _checked.setdefault(vision, name) == name:
        check(name)


@pytest.mark.parametrize("name", TIMM)
def test_timm_models_are_read_and_edited_truly(name):
    check(f"timm/{name}")
