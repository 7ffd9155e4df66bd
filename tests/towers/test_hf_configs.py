"""What transformers' configs say, and what they leave out because it is a default there."""

from __future__ import annotations

from typing import Any

import pytest
import transformers as tf

from xaikit.errors import XaikitError
from xaikit.towers.hf_configs import DEFAULTS, _ratio, model_settings, spec_of, vision_config
from xaikit.towers.hf_names import Renamed

CONFIGS = {
    "clip": tf.CLIPVisionConfig,
    "clip_vision_model": tf.CLIPVisionConfig,
    "siglip": tf.SiglipVisionConfig,
    "siglip_vision_model": tf.SiglipVisionConfig,
    "vit": tf.ViTConfig,
    "deit": tf.DeiTConfig,
    "dinov2": tf.Dinov2Config,
    "dinov2_with_registers": tf.Dinov2WithRegistersConfig,
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults_are_those_of_transformers(kind: str) -> None:
    theirs = CONFIGS[kind]()
    shared = {name: value for name, value in DEFAULTS[kind].items() if hasattr(theirs, name)}
    assert {"hidden_size", "hidden_act", "layer_norm_eps", "patch_size"} <= set(shared)
    assert shared == {name: getattr(theirs, name) for name in shared}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("CLIPModel", tf.CLIPVisionConfig),
        ("SiglipModel", tf.SiglipVisionConfig),
        ("ViTModel", tf.ViTConfig),
        ("DeiTModel", tf.DeiTConfig),
        ("Dinov2Model", tf.Dinov2Config),
        ("Dinov2WithRegistersModel", tf.Dinov2WithRegistersConfig),
    ],
)
def test_a_file_without_a_config_has_the_norm_of_its_kind(kind: str, config: Any) -> None:
    assert Renamed(kind=kind, state={}, prefix="").norm_eps == config().layer_norm_eps


def test_what_a_config_says_wins_and_what_it_says_of_nothing_does_not() -> None:
    given = {"model_type": "vit", "hidden_size": 64, "layer_norm_eps": None}
    found = vision_config(given)
    assert found is not None
    assert (found["hidden_size"], found["layer_norm_eps"]) == (64, 1e-12)
    inner = {"model_type": "clip", "hidden_size": 9, "vision_config": {"hidden_size": 64}}
    assert (vision_config(inner) or {})["hidden_size"] == 64
    assert vision_config({"model_type": "bert"}) is None


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("quick_gelu", "quick_gelu"),
        ("gelu", "gelu"),
        ("gelu_python", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_fast", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
    ],
)
def test_activations_are_called_what_they_compute(name: str, activation: str) -> None:
    config = {"model_type": "clip", "vision_config": {"hidden_act": name}}
    found = model_settings(config)
    assert found == {"norm_eps": 1e-5, "activation": activation}
    assert spec_of("m", config, {}).config["quick_gelu"] is (activation == "quick_gelu")


def test_a_gated_ffn_has_an_activation_of_its_own() -> None:
    assert "activation" not in model_settings({"model_type": "dinov2", "use_swiglu_ffn": True})
    assert model_settings({"model_type": "bert"}) == {}


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(XaikitError, match="m: the activation 'relu6' is none xaikit knows"):
        spec_of("m", {"model_type": "vit", "hidden_act": "relu6"}, {})
    with pytest.raises(XaikitError, match=r"m: transformers' bert is none of clip, .*vit"):
        spec_of("m", {"model_type": "bert"}, {})


@pytest.mark.parametrize(("crop", "size"), [(28, 28), (None, 518), (30, 518)])
def test_dinov2_is_as_large_as_its_processor_crops_to_where_patches_fit(
    crop: int | None, size: int
) -> None:
    processor = {} if crop is None else {"crop_size": {"height": crop, "width": crop}}
    config = {"model_type": "dinov2", "image_size": 518, "patch_size": 14}
    assert spec_of("m", config, processor).options["img_size"] == size


def test_no_width_of_an_ffn_is_lost_to_rounding() -> None:
    for width in (192, 384, 768, 1000, 1152, 1408):
        for hidden in (width, 4 * width, 3072, 4304, 6144, 2 * width + 1):
            assert int(width * _ratio(hidden, width)) == hidden
