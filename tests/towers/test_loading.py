"""From names and sources of weights to towers, and one line where that fails."""

from __future__ import annotations

import json

import huggingface_hub.constants
import open_clip.pretrained
import pytest
import torch
from safetensors.torch import save_file

from xaikit.errors import UsageError, XaikitError
from xaikit.towers import load_tower
from xaikit.towers.downloads import reachable
from xaikit.towers.loading import given_settings


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def tagged(monkeypatch, small_model, tmp_path):
    """Two tags of the small model, both a file here, one trained with QuickGELU."""
    tower = load_tower(small_model, "random", seed=3)
    save_file(tower.module.state_dict(), tmp_path / "tag.safetensors")
    path = str(tmp_path / "tag.safetensors")
    tags = {
        "plain": {"file": path},
        "quick": {"file": path, "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.2,) * 3}
        | {"resize_mode": "squash", "interpolation": "bilinear"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, small_model, tags)
    return small_model


def test_random_weights_are_seeded(small_model):
    first, again, other = (load_tower(small_model, "random", seed=seed) for seed in (0, 0, 1))
    assert first.weights_fingerprint == again.weights_fingerprint
    assert first.weights_fingerprint != other.weights_fingerprint
    assert first.pretrained == "random"


def test_random_weights_leave_the_callers_generator_alone(small_model):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_tower(small_model, "random")
    assert torch.equal(torch.rand(1), expected)


def test_a_tag_brings_its_activation_and_preprocessing(tagged, pixels):
    plain, quick = load_tower(tagged, "plain"), load_tower(tagged, "quick")
    assert plain.weights_fingerprint != quick.weights_fingerprint
    assert type(plain.blocks[0].activation).__name__ == "GELU"
    assert type(quick.blocks[0].activation).__name__ == "QuickGELU"
    assert not torch.equal(plain.encode(pixels), quick.encode(pixels))
    assert quick.preprocess.mean == (0.5, 0.5, 0.5)
    assert (quick.preprocess.mode, quick.preprocess.interpolation) == ("squash", "bilinear")


def test_the_vision_tower_is_open_clips_own(tagged, pixels, tmp_path):
    whole = open_clip.create_model(tagged, pretrained=None).eval()
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    tower = load_tower(tagged, tmp_path / "whole.safetensors")
    with torch.no_grad():
        assert torch.equal(tower.encode(pixels), whole.encode_image(pixels))


def test_defaults_and_overrides_of_preprocessing(small_model):
    tower = load_tower(small_model, "random")
    assert tower.preprocess.size == (16, 16)
    assert tower.preprocess.mean == open_clip.OPENAI_DATASET_MEAN
    assert tower.preprocess.resize is None
    tower = load_tower(small_model, "random", mean=(0, 0, 0), std=(1, 1, 1), resize=20)
    assert tower.preprocess.mean == (0.0, 0.0, 0.0)
    assert tower.preprocess.std == (1.0, 1.0, 1.0)
    assert tower.preprocess.resize == 20


def test_timm_preprocessing_is_the_models_own():
    tower = load_tower("timm/vit_tiny_patch16_224", "random")
    assert tower.preprocess.resize == 248
    assert tower.preprocess.mean == tower.preprocess.std == (0.5, 0.5, 0.5)
    assert tower.preprocess.interpolation == "bicubic"
    assert tower.info.classes == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,)}, r"`mean=0\.5`: expected three numbers"),
        ({"std": (1, 1, 0)}, "`std=1,1,0`: expected three numbers above 0"),
        ({"resize": 8}, "resize 8 is smaller"),
        ({"precision": "float8"}, "precision 'float8' is none of"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_options_that_make_no_sense_are_named(small_model, options, message):
    with pytest.raises(UsageError, match=message):
        load_tower(small_model, "random", **options)


def test_no_weights_says_what_to_pass():
    with pytest.raises(UsageError, match=r"ViT-B-32 needs weights: .*openai.*'random'"):
        load_tower("ViT-B-32")
    with pytest.raises(UsageError, match=r"needs weights: .*augreg.*'random'"):
        load_tower("timm/vit_tiny_patch16_224")


def test_unknown_tags_and_missing_files_are_told_apart():
    with pytest.raises(UsageError, match=r"'opnai' is no pretrained tag of ViT-B-32: .*openai"):
        load_tower("ViT-B-32", "opnai")
    with pytest.raises(UsageError, match=r"checkpoint gone\.pt does not exist"):
        load_tower("ViT-B-32", "gone.pt")


@pytest.mark.parametrize(
    ("model", "tag"),
    [("ViT-B-32", "openai"), ("timm/vit_tiny_patch16_224", "augreg_in21k_ft_in1k")],
)
@pytest.mark.usefixtures("offline")
def test_without_network_one_line_says_what_to_pass(model, tag):
    with pytest.raises(XaikitError) as caught:
        load_tower(model, tag)
    message = str(caught.value)
    assert f"the weights '{tag}' of {model} are not cached here" in message
    assert "local checkpoint" in message
    assert "'random'" in message
    assert "\n" not in message


def test_the_demo_has_its_own_weights(pixels):
    tower = load_tower("xaikit-demo", check=True)
    assert tower.info.tokens == 65
    assert tower.weights_fingerprint == load_tower("xaikit-demo").weights_fingerprint


def test_a_config_file_loads_by_its_name(small_model, tmp_path):
    config = open_clip.get_model_config(small_model)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.1] * 3}}))
    tower = load_tower(str(path), "random")
    named = load_tower(small_model, "random")
    assert tower.info.model == str(path)
    assert load_tower(tower.info.model, "random").info == tower.info
    assert tower.weights_fingerprint == named.weights_fingerprint
    assert tower.preprocess.mean == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_hands_out_float32(small_model, pixels, precision):
    from xaikit.towers import capture

    whole = load_tower(small_model, "random")
    half = load_tower(small_model, "random", precision=precision, check=True)
    assert half.weights_fingerprint == whole.weights_fingerprint
    got = {}
    capture(
        half,
        pixels,
        ffn={0: lambda h, _gate: got.update(h=h)},
        attention={1: lambda call: got.update(logits=call.logits(), query=call.query)},
    )
    assert got["h"].dtype == got["logits"].dtype == torch.float32
    assert got["query"].dtype == half.dtype != torch.float32
    embedding = half.encode(pixels)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding, whole.encode(pixels), rtol=0.1, atol=0.1)


def test_rotary_tables_stay_whole_in_half_precision(make):
    from xaikit.towers.loading import _place

    tower = make["eva"]()
    before = tower.module.rope.get_embed().clone()
    _place(tower, torch.device("cpu"), "bfloat16")
    assert torch.equal(tower.module.rope.get_embed(), before)


def test_hosts_without_a_number_are_not_reached_but_through_a_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not reachable("https://xaikit.invalid")
    assert reachable("https://127.0.0.1:443/models")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert reachable("https://xaikit.invalid")


def test_a_given_mode_that_cuts_nothing_leaves_no_side_to_cut_from_but_a_given_one():
    """The model's own goes with its own mode: squashed to 256 pixels, 224 would be cut out."""
    assert given_settings(resize_mode="squash") == {"mode": "squash", "resize": None}
    assert given_settings(resize_mode="longest") == {"mode": "longest", "resize": None}
    assert given_settings(resize_mode="shortest") == {"mode": "shortest"}
    assert given_settings(resize_mode="squash", resize=9) == {"mode": "squash", "resize": 9}
