"""Where each family keeps its parts, and the attention that is no plain one."""

from __future__ import annotations

from types import SimpleNamespace as Some

import pytest
import timm
from torch import nn

from xaikit.errors import XaikitError
from xaikit.towers.families import _open_clip_layout, _timm_layout
from xaikit.towers.tower import wrap_tower


@pytest.mark.parametrize(
    "options",
    [
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"batch_first": False},
        {"kdim": 16, "vdim": 32},
    ],
    ids=lambda each: next(iter(each)),
)
def test_attention_with_more_than_plain_tokens_is_refused(native, options):
    block = native.module.transformer.resblocks[1]
    block.attn = nn.MultiheadAttention(32, 2, **{"batch_first": True, **options})
    with pytest.raises(XaikitError, match=r"odd: its nn\.Multihead.* is no plain batch-first"):
        wrap_tower(native.module, model="odd")


def test_scaled_cosine_attention_is_refused(native):
    block = native.module.transformer.resblocks[1]
    block.attn = nn.Module()
    block.attn.logit_scale = nn.Parameter(block.ln_1.weight[:2].clone())
    block.attn.num_heads = 2
    with pytest.raises(XaikitError, match="odd: scaled cosine attention does not call"):
        wrap_tower(native.module, model="odd")


def test_the_classes_of_a_trunk_inside_a_clip_are_none_of_the_tower_s():
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2}
    trunk = timm.create_model("vit_tiny_patch16_224", num_classes=5, **options)
    alone, inside = _timm_layout(trunk), _open_clip_layout(Some(trunk=trunk))
    assert alone["classes"] == 5
    assert inside == alone | {"classes": 0}
