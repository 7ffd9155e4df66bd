"""Modules that are already built become towers, or one line says what to pass."""

from __future__ import annotations

import warnings

import open_clip
import peft
import pytest
import timm
import torch
import transformers as tf
from open_clip.model import CLIP
from torch import nn
from torch.optim.swa_utils import AveragedModel

from xaikit.errors import UsageError, XaikitError, XaikitWarning
from xaikit.towers import BlockCache, capture, editing, load_tower, self_check, wrap_tower
from xaikit.towers.built import unwrapped
from xaikit.towers.projection import written_values

PREPARED = {
    "size": (16, 16),
    "mode": "RGB",
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "bilinear",
    "resize_mode": "squash",
    "fill_color": 0,
}


@pytest.fixture
def clip():
    from .conftest import SMALL_CONFIG

    torch.manual_seed(0)
    model = CLIP(**SMALL_CONFIG).eval()
    open_clip.model.set_model_preprocess_cfg(model, PREPARED)
    return model


@pytest.fixture
def vit():
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **options).eval()


def quietly(module, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", XaikitWarning)
        return load_tower(module, **options)


def logits_of(tower, pixels, layer=1):
    found = []
    capture(tower, pixels, attention={layer: lambda call: found.append(call.logits())})
    return found[0]


def test_a_whole_clip_and_its_visual_are_the_same_tower(clip, pixels):
    whole, visual = quietly(clip), quietly(clip.visual)
    assert whole.module is visual.module is clip.visual
    assert whole.info.family == "open_clip"
    assert whole.weights_fingerprint == visual.weights_fingerprint
    assert whole.preprocess == visual.preprocess
    assert whole.preprocess.mean == (0.1, 0.2, 0.3)
    assert (whole.preprocess.mode, whole.preprocess.interpolation) == ("squash", "bilinear")
    assert whole.loaded["settings"]["mean"]["from"] == "the module"
    with torch.no_grad():
        assert torch.equal(whole.encode(pixels), clip.encode_image(pixels))


def test_a_timm_model_brings_its_data_config(vit, pixels):
    tower = quietly(vit)
    assert tower.info.family == "timm"
    assert tower.preprocess.resize == 17
    assert tower.preprocess.mean == (0.5, 0.5, 0.5)
    assert torch.equal(tower.classifier(pixels), vit(pixels))
    assert wrap_tower(vit, model="m").preprocess == tower.preprocess


def test_a_module_that_carries_nothing_is_said(make, vit):
    bare = make["timm"]().module
    with pytest.warns(XaikitWarning, match="VisionTransformer: it is not known .* pass mean, std"):
        load_tower(bare)
    assert quietly(bare, mean=(0, 0, 0), std=(1, 1, 1)).preprocess.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("wrap", ["parallel", "compiled", "both", "averaged"])
@pytest.mark.parametrize("kind", ["clip", "vit"])
def test_wrapped_modules_are_the_same_tower(clip, vit, pixels, wrap, kind):
    module = clip if kind == "clip" else vit
    plain = quietly(module)
    expected = logits_of(plain, pixels)
    if wrap in ("compiled", "both"):
        module = torch.compile(module, backend="eager")
    if wrap in ("parallel", "both"):
        module = nn.DataParallel(module)
    if wrap == "averaged":
        module = AveragedModel(module)
    tower = quietly(module)
    assert tower.weights_fingerprint == plain.weights_fingerprint
    assert torch.equal(logits_of(tower, pixels), expected)
    assert tower.preprocess == plain.preprocess


def compile_inside(kind, module):
    """Compile a module in the ways that leave its own class in place."""
    if kind == "in place":
        module.compile(backend="eager")
    elif kind == "visual" and hasattr(module, "visual"):
        module.visual = torch.compile(module.visual, backend="eager")
    else:
        visual = getattr(module, "visual", module)
        blocks = getattr(visual, "blocks", None)
        blocks = visual.transformer.resblocks if blocks is None else blocks
        for index, block in enumerate(blocks):
            if kind == "blocks in place":
                block.compile(backend="eager")
            else:
                blocks[index] = torch.compile(block, backend="eager")
    return module


@pytest.mark.parametrize("how", ["in place", "visual", "blocks", "blocks in place"])
@pytest.mark.parametrize("kind", ["clip", "vit"])
def test_compiled_parts_are_captured_and_edited(clip, vit, pixels, kind, how):
    module = clip if kind == "clip" else vit
    plain = quietly(module)
    fingerprint, expected = plain.weights_fingerprint, logits_of(plain, pixels)
    with editing(plain, 1, lambda _call, logits: torch.zeros_like(logits)):
        edited = plain.encode(pixels)
    module = compile_inside(how, module)
    # Whatever was compiled has run before it is read.
    with torch.no_grad():
        module.encode_image(pixels) if kind == "clip" else module(pixels)
    tower = quietly(module)
    assert tower.weights_fingerprint == fingerprint
    assert torch.equal(logits_of(tower, pixels), expected)
    with editing(tower, 1, lambda _call, logits: torch.zeros_like(logits)):
        torch.testing.assert_close(tower.encode(pixels), edited)
    cache = BlockCache(tower, 1).fill(pixels)
    resumed = cache.outputs(lambda _call, logits: torch.zeros_like(logits)).embedding
    torch.testing.assert_close(resumed, edited)
    assert self_check(tower).passed


def test_a_bfloat16_module_runs_as_it_is(vit, clip, pixels):
    for module in (vit, clip):
        tower = quietly(module.bfloat16())
        assert tower.precision == "bfloat16"
        assert logits_of(tower, pixels).dtype == torch.float32
        assert self_check(tower).passed
        assert quietly(module, precision="bfloat16").precision == "bfloat16"
        with pytest.raises(UsageError, match="runs in bfloat16: convert it to float32"):
            load_tower(module, precision="float32")


def test_a_float64_module_says_what_to_do(vit):
    with pytest.raises(UsageError, match="weights of float64: convert it to one of float32"):
        load_tower(vit.double())


TARGETS = {"vit": ["qkv", "proj", "fc1", "fc2"], "clip": ["attn", "out_proj", "c_fc", "c_proj"]}


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_adapters_of_peft_are_part_of_the_tower(clip, vit, pixels, kind):
    module = clip.visual if kind == "clip" else vit
    config = peft.LoraConfig(target_modules=TARGETS[kind], r=2, init_lora_weights=False)
    plain = quietly(module)
    before, fingerprint = logits_of(plain, pixels), plain.weights_fingerprint
    adapted = peft.get_peft_model(module, config).eval()
    tower = quietly(adapted)
    assert unwrapped(adapted) is tower.module
    assert tower.weights_fingerprint != fingerprint
    assert not torch.allclose(logits_of(tower, pixels), before)
    with torch.no_grad():
        torch.testing.assert_close(tower.outputs(pixels).embedding, tower.encode(pixels))
    assert self_check(tower).passed
    expected = logits_of(tower, pixels)
    merged = quietly(adapted.merge_and_unload())
    torch.testing.assert_close(logits_of(merged, pixels), expected)


def test_what_a_head_writes_counts_adapters(vit, pixels):
    config = peft.LoraConfig(target_modules=["proj"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(vit, config).eval()
    tower, found = quietly(adapted), []
    with torch.no_grad():
        tap = {1: lambda call: found.append(written_values(tower, 1, call))}
        capture(tower, pixels, attention=tap)
        merged = quietly(adapted.merge_and_unload())
        tap = {1: lambda call: found.append(written_values(merged, 1, call))}
        capture(merged, pixels, attention=tap)
    torch.testing.assert_close(found[0], found[1])


def test_the_text_side_of_a_built_model(clip, vit):
    tower = quietly(clip, with_text=True)
    assert tower.text.tokenize(["a dog"]).shape == (1, 77)
    with pytest.raises(UsageError, match="no text tower: pass the whole CLIP model"):
        load_tower(clip.visual, with_text=True)


def test_what_is_no_tower_says_what_to_pass(vit):
    for odd in (nn.Linear(2, 2), 3, None, ["timm"]):
        with pytest.raises(UsageError, match="xaikit takes an open_clip model or its visual, or"):
            load_tower(odd)
    with pytest.raises(UsageError, match="family 'Timm' is none of open_clip, timm"):
        wrap_tower(vit, model="m", family="Timm")
    with pytest.raises(UsageError, match="is of family 'timm', not 'open_clip'"):
        wrap_tower(vit, model="m", family="open_clip")
    with pytest.raises(XaikitError, match="ResNet"):
        load_tower(timm.create_model("resnet18"))
    with pytest.raises(UsageError, match="a built module keeps its own"):
        load_tower(vit, quick_gelu=True)


def test_a_module_of_transformers_says_how_to_pass_it():
    config = tf.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(UsageError, match=r"ViTModel of transformers .*local-dir:FOLDER"):
        load_tower(tf.ViTModel(config))


def test_a_built_modules_device_is_its_own_unless_one_is_given(vit):
    assert load_tower(vit).device.type == "cpu"
    assert load_tower(vit, device="cpu").device.type == "cpu"
