"""The text tower gives the class logits that open_clip's own model gives."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from xaikit.errors import UsageError, XaikitError
from xaikit.towers import load_tower, text_features, zero_shot

PROMPTS = ["a red circle", "a blue square", "two dogs"]


@pytest.fixture
def whole(small_model, tmp_path):
    torch.manual_seed(2)
    model = open_clip.create_model(small_model, pretrained=None).eval()
    save_file(model.state_dict(), tmp_path / "whole.safetensors")
    return model, tmp_path / "whole.safetensors"


def test_logits_are_those_of_the_whole_model(small_model, whole, pixels):
    model, path = whole
    tower = load_tower(small_model, path, with_text=True)
    classifier = zero_shot(tower, PROMPTS)
    tokens = open_clip.get_tokenizer(small_model)(PROMPTS)
    with torch.no_grad():
        images, texts, scale = model(pixels, tokens)
    torch.testing.assert_close(classifier(tower.encode(pixels)), scale * images @ texts.T)
    torch.testing.assert_close(classifier.features.norm(dim=-1), torch.ones(3))


def test_the_vision_side_is_the_same_with_and_without_text(small_model, pixels):
    alone = load_tower(small_model, "random", seed=4)
    both = load_tower(small_model, "random", seed=4, with_text=True)
    assert torch.equal(alone.encode(pixels), both.encode(pixels))
    assert both.text.model.visual is both.module
    assert alone.weights_fingerprint == both.weights_fingerprint


def test_a_sigmoid_models_bias_is_in_the_logits(small_model, monkeypatch, pixels):
    config = open_clip.get_model_config(small_model) | {"init_logit_bias": -7.0}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, small_model, config)
    tower = load_tower(small_model, "random", with_text=True)
    classifier = zero_shot(tower, PROMPTS)
    assert classifier.bias == -7.0
    flat = classifier(torch.zeros(1, 8))
    torch.testing.assert_close(flat, torch.full((1, 3), -7.0))


def test_gradients_pass_through_a_classifier(small_model):
    tower = load_tower(small_model, "random", with_text=True)
    embedding = torch.randn(2, 8, requires_grad=True)
    zero_shot(tower, PROMPTS)(embedding).sum().backward()
    assert embedding.grad is not None


def test_a_checkpoint_without_text_is_named(small_model, whole, tmp_path):
    model, _ = whole
    save_file(model.visual.state_dict(), tmp_path / "vision.safetensors")
    assert load_tower(small_model, tmp_path / "vision.safetensors").text is None
    with pytest.raises(XaikitError, match=r"vision\.safetensors holds no text tower: missing"):
        load_tower(small_model, tmp_path / "vision.safetensors", with_text=True)


def test_missing_text_towers_are_named(small_model):
    with pytest.raises(UsageError, match="loaded without its text tower"):
        text_features(load_tower(small_model, "random"), PROMPTS)
    with pytest.raises(UsageError, match="classifier head takes its place"):
        load_tower("timm/vit_tiny_patch16_224", "random", with_text=True)
    with pytest.raises(UsageError, match="no prompts"):
        zero_shot(load_tower(small_model, "random", with_text=True), [])
