"""Preprocessing and activation: what is known is used, and what is not is said once."""

from __future__ import annotations

import json
import warnings

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from xaikit.errors import UsageError, XaikitWarning
from xaikit.towers import load_tower
from xaikit.towers.settings import Decision, of_open_clip, of_timm, to_preprocess


@pytest.fixture
def file(small_model, tmp_path):
    """Weights of the small model, with nothing beside them."""
    save_file(load_tower(small_model, "random").module.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def tags(monkeypatch, small_model):
    """Set the pretrained tags of the small model."""

    def use(**settings):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, small_model, settings)

    return use


def load(model, file, **options):
    """A tower, and the warnings about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tower = load_tower(model, file, **options)
    return tower, [str(w.message) for w in caught if w.category is XaikitWarning]


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_what_all_tags_agree_on_is_used(small_model, file, tags):
    tags(a=HALF | {"resize_mode": "squash"}, b=HALF | {"resize_mode": "squash"})
    tower, said = load(small_model, file)
    assert said == []
    assert (tower.preprocess.mean, tower.preprocess.mode) == ((0.5, 0.5, 0.5), "squash")
    assert tower.loaded["settings"]["mean"]["from"] == "all tags of the name"
    assert tower.loaded["warnings"] == []


@pytest.mark.parametrize("like", [{}, {"like_tag": "a"}], ids=["all tags", "one tag"])
def test_what_is_given_wins_over_all_that_is_known(small_model, file, tags, like):
    tags(a=HALF | {"resize_mode": "squash"})
    mean = (0.1, 0.2, 0.3)
    tower, _ = load(small_model, file, mean=mean, resize_mode="longest", **like)
    assert (tower.preprocess.mean, tower.preprocess.std) == (mean, HALF["std"])
    assert tower.preprocess.mode == "longest"
    assert tower.loaded["settings"]["mean"]["from"] == "given"


def test_what_tags_disagree_on_is_said_once_with_what_changes_it(small_model, file, tags):
    tags(quick={"quick_gelu": True}, plain={}, other={})
    tower, said = load(small_model, file)
    assert len(said) == 1
    assert "activation" in said[0]
    assert "QuickGELU: quick; GELU: plain, other" in said[0]
    assert "Used: activation GELU" in said[0]
    assert "like_tag, quick_gelu" in said[0]
    assert "mean" not in said[0]
    flags = tower.loaded["warnings"][0]
    assert "--like-tag TAG, --quick-gelu or --no-quick-gelu" in flags
    assert "\n" not in flags


def test_tags_that_disagree_with_the_config_are_used_and_said(small_model, file, tags):
    tags(quick={"quick_gelu": True})
    tower, said = load(small_model, file)
    assert "its tags say QuickGELU and its config says GELU" in said[0]
    assert "Used: activation QuickGELU" in said[0]
    assert type(tower.blocks[0].activation).__name__ == "QuickGELU"


@pytest.mark.parametrize(
    ("options", "activation"),
    [
        ({"quick_gelu": True}, "quick_gelu"),
        ({"quick_gelu": False}, "gelu"),
        ({"like_tag": "quick"}, "quick_gelu"),
        ({"like_tag": "plain"}, "gelu"),
    ],
)
def test_what_is_given_ends_the_doubt(small_model, file, tags, options, activation, pixels):
    tags(quick={"quick_gelu": True}, plain={})
    tower, said = load(small_model, file, **options)
    assert said == []
    assert tower.loaded["settings"]["activation"]["value"] == activation
    other, _ = load(small_model, file, quick_gelu=activation != "quick_gelu")
    assert not torch.equal(tower.encode(pixels), other.encode(pixels))
    assert tower.weights_fingerprint != other.weights_fingerprint


def test_a_tag_to_be_like_has_to_exist(small_model, file, tags):
    tags(plain={})
    with pytest.raises(UsageError, match=r"`like_tag=gone`: small-clip has no such tag; it has pl"):
        load_tower(small_model, file, like_tag="gone")


def test_where_nothing_is_known_it_is_said(small_model, file):
    _, said = load(small_model, file)
    assert len(said) == 1
    assert "mean, std: nothing says" in said[0]
    assert "0.4815" in said[0]
    assert load(small_model, file, mean=(0, 0, 0), std=(1, 1, 1))[1] == []


def test_random_weights_and_the_demo_need_no_warning(small_model):
    assert load(small_model, "random")[1] == []
    assert load("xaikit-demo", None)[1] == []


def test_the_traps_of_real_names():
    """ViT-B-32 has tags of both activations; SigLIP's and DFN's tags are of one mind."""
    from xaikit.towers.known import tag_settings, tags_of
    from xaikit.towers.registry import resolve

    def doubts(name):
        spec, decision = resolve(name), Decision()
        decision.take_agreed({t: tag_settings(spec, t, (224, 224)) for t in tags_of(spec)}, set())
        return decision

    assert [name for name, _ in doubts("ViT-B-32").doubts] == ["activation"]
    siglip = doubts("ViT-B-16-SigLIP")
    assert siglip.doubts == []
    assert siglip.values["mean"] == (0.5, 0.5, 0.5)
    assert siglip.values["mode"] == "squash"
    dfn = doubts("ViT-H-14-378-quickgelu")
    assert dfn.doubts == []
    assert dfn.values["activation"] == "quick_gelu"
    assert [name for name, _ in doubts("ViT-H-14").doubts] == ["activation", "mode"]


def test_tags_of_timm_that_disagree_are_said(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    tower, said = load("timm/vit_tiny_patch16_224", tmp_path / "w.safetensors")
    assert said == []
    assert tower.loaded["settings"]["resize"] == {"value": 248, "from": "all tags of the name"}
    from xaikit.towers.known import tag_settings, tags_of
    from xaikit.towers.registry import resolve

    spec, decision = resolve("timm/vit_base_patch16_224"), Decision()
    decision.take_agreed({t: tag_settings(spec, t, (224, 224)) for t in tags_of(spec)}, set())
    assert {"mean", "std"} <= {name for name, _ in decision.doubts}


def test_a_timm_tag_in_the_name_settles_it(tmp_path):
    model = timm.create_model("vit_small_patch16_224")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    name = "timm/vit_small_patch16_224"
    _, said = load(name, tmp_path / "w.safetensors")
    assert len(said) == 1
    tower, said = load(f"{name}.dino", tmp_path / "w.safetensors")
    assert said == []
    assert tower.preprocess.mean == (0.485, 0.456, 0.406)
    assert load(name, tmp_path / "w.safetensors", like_tag="dino")[1] == []


def test_later_settings_win_and_keep_what_they_do_not_say():
    decision = Decision().take({"mean": 1, "std": 2}, "first").take({"mean": 3}, "second")
    assert decision.values == {"mean": 3, "std": 2}
    assert decision.sources == {"mean": "second", "std": "first"}


def test_configs_are_read_as_their_libraries_do():
    assert of_open_clip({"resize_mode": "squash", "quick_gelu": False}) == {
        "mode": "squash",
        "activation": "gelu",
    }
    assert of_timm({"crop_pct": 0.9, "mean": [0, 0, 0]}, (224, 224)) == {
        "mean": (0.0, 0.0, 0.0),
        "mode": "shortest",
        "resize": 248,
    }
    assert of_timm({"crop_pct": 1.0, "crop_mode": "squash"}, (224, 224))["mode"] == "squash"
    assert to_preprocess({"interpolation": "bilinear"}, (8, 8)).interpolation == "bilinear"


@pytest.mark.parametrize("name", ["open_clip_config.json", "config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_cfg": 3}', '{"model_type": "bert"}'])
def test_stray_configs_beside_a_file_change_nothing(small_model, file, name, text):
    (file.parent / name).write_text(text)
    _, said = load(small_model, file)
    assert len(said) == 1


def test_the_record_is_json(small_model, file):
    tower, _ = load(small_model, file)
    assert json.loads(json.dumps(tower.loaded))["file"] == "w.safetensors"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"resize_mode": "stretch"}, "resize mode 'stretch' is none of shortest, squash, longest")],
)
def test_modes_that_do_not_exist_are_named(small_model, options, message):
    with pytest.raises(UsageError, match=message):
        load_tower(small_model, "random", **options)


def test_a_given_mode_is_used(small_model):
    assert load_tower(small_model, "random", resize_mode="longest").preprocess.mode == "longest"
