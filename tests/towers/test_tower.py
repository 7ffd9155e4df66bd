"""What a tower says about itself, and its outputs."""

from __future__ import annotations

import pytest
import torch

from xaikit.errors import UsageError
from xaikit.towers import describe, resolve

MANY = tuple(f"register {number}" for number in range(1, 5))


def test_info_describes_the_module(make):
    info = make["native"]().info
    assert (info.layers, info.heads, info.tokens, info.prefix_tokens) == (4, 2, 17, 1)
    assert (info.width, info.ffn_width, info.grid, info.image_size) == (32, 64, (4, 4), (16, 16))
    assert make["timm"](reg_tokens=2, num_classes=5).info.prefix_tokens == 3
    assert make["timm"](class_token=False, global_pool="avg").info.tokens == 16


def test_tokens_have_names(make):
    info = make["timm"](reg_tokens=2).info
    names = [info.token_name(token) for token in (0, 1, 2, 3, 8, 18)]
    assert names == [
        "class token",
        "register 1",
        "register 2",
        "patch (0, 0)",
        "patch (1, 1)",
        "patch (3, 3)",
    ]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("ViT-S-16", ("class token",)),
        ("ViT-B-16-SigLIP", ()),
        ("timm/vit_medium_patch16_reg4_gap_256", MANY),
        ("timm/vit_small_patch14_reg4_dinov2", ("class token", *MANY)),
        ("timm/vit_small_patch16_dinov3", ("class token", *MANY)),
        ("timm/deit_tiny_distilled_patch16_224", ("class token", "distillation token")),
        ("timm/vit_relpos_small_patch16_224", ()),
        ("timm/vit_relpos_medium_patch16_cls_224", ("class token",)),
        ("timm/beit_base_patch16_224", ("class token",)),
    ],
)
def test_each_token_before_the_patches_is_called_what_it_is(name, kinds):
    info = describe(resolve(name))
    assert info.prefix_kinds == kinds
    assert info.prefix_tokens == len(kinds)
    assert info.token_name(len(kinds)) == "patch (0, 0)"


def test_one_pass_gives_features_and_class_logits(make, pixels):
    tower = make["timm"]()
    passes = []
    tower.blocks[0].block.register_forward_hook(lambda _m, _a, _o: passes.append(1))
    out = tower.outputs(pixels)
    assert len(passes) == 1
    assert torch.equal(out.class_logits, tower.module(pixels))
    assert torch.equal(out.class_logits, tower.module.head(out.embedding))
    assert torch.equal(tower.classifier(pixels), out.class_logits)


def test_a_distilled_model_answers_with_both_heads(pixels):
    from timm.models.deit import VisionTransformerDistilled

    from xaikit.towers import wrap_tower

    module = VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5
    )
    tower = wrap_tower(module, model="distilled", family="timm")
    assert tower.info.prefix_tokens == 2
    assert torch.equal(tower.classifier(pixels), module(pixels))


def test_towers_that_return_tokens_too_still_give_the_embedding(make, pixels):
    tower = make["native"](output_tokens=True)
    assert isinstance(tower.module(pixels), tuple)
    assert torch.equal(tower.encode(pixels), tower.module(pixels)[0])


def test_a_missing_classifier_says_what_to_do(native, pixels):
    assert native.outputs(pixels).class_logits is None
    with pytest.raises(UsageError, match="no classifier head"):
        native.classifier(pixels)


def test_nothing_asks_for_gradients(tower, pixels):
    assert not tower.encode(pixels).requires_grad
    assert not tower.module.training


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 3, 16, 16), (1, 3, 16, 8), (1, 1, 16, 16)])
def test_pixels_are_a_batch_of_coloured_images(native, shape):
    with pytest.raises(UsageError, match=r"takes pixels of shape \[B, 3, 16, 16\], not"):
        native.check_pixels(torch.zeros(shape))


def test_what_a_tower_computes_otherwise_is_part_of_its_fingerprint(make):
    plain, other = make["native"](), make["native"]()
    other.computes = ("quick_gelu",)
    assert plain.weights_fingerprint == make["native"]().weights_fingerprint
    assert plain.weights_fingerprint != other.weights_fingerprint
    assert plain.weights_fingerprint == plain.fingerprint


def test_a_module_that_carries_nothing_is_prepared_by_half(make):
    found = make["native"]().preprocess
    assert (found.mean, found.std, found.size) == ((0.5,) * 3, (0.5,) * 3, (16, 16))
