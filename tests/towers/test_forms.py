"""Every form in which weights are handed around gives the logits of the module they came from."""

from __future__ import annotations

import json
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models.vision_transformer import checkpoint_filter_fn

from xaikit.errors import XaikitError, XaikitWarning
from xaikit.images.transform import pixels_for
from xaikit.towers import Tower, load_tower, wrap_tower

from .conftest import PICTURE, logits_of, quietly, spread

CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPARED = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}


@pytest.fixture
def clip() -> CLIP:
    return spread(CLIP(**CONFIG, quick_gelu=True))


def same(tower: Tower, clip: CLIP, pixels: torch.Tensor) -> None:
    """The same embedding, and the same attention logits in all layers."""
    with torch.no_grad():
        theirs = clip.encode_image(pixels)
    torch.testing.assert_close(tower.encode(pixels), theirs, rtol=1e-5, atol=1e-5)
    original = wrap_tower(clip, model="original")
    torch.testing.assert_close(
        logits_of(tower, pixels), logits_of(original, pixels), rtol=1e-5, atol=1e-5
    )


@pytest.fixture
def folder(clip, tmp_path):
    """A repository as open_clip writes it."""
    root = tmp_path / "repository"
    root.mkdir()
    config = {"model_cfg": CONFIG | {"quick_gelu": True}, "preprocess_cfg": PREPARED}
    (root / "open_clip_config.json").write_text(json.dumps(config))
    save_file(clip.state_dict(), root / "open_clip_model.safetensors")
    return root


def prepared(tower: Tower, **options: Any) -> None:
    """A picture becomes the very numbers that open_clip itself makes of it."""
    theirs = image_transform_v2(PreprocessCfg(size=16, **PREPARED, **options), is_train=False)
    assert torch.equal(pixels_for(PICTURE, tower.preprocess), theirs(PICTURE))


def test_a_folder_of_open_clip(folder, clip, pixels):
    for name in (f"local-dir:{folder}", str(folder)):
        tower = quietly(name)
        same(tower, clip, pixels)
        prepared(tower)
    again = quietly(tower.info.model, tower.pretrained)
    assert again.weights_fingerprint == tower.weights_fingerprint


def test_the_hub_and_its_cache_folder(folder, clip, pixels, tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--org--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots").mkdir()
    folder.rename(cache / "snapshots" / "abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache.parent))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("hf-hub:org/name", f"local-dir:{cache}", str(cache)):
        tower = quietly(name)
        same(tower, clip, pixels)
        prepared(tower)


def test_what_is_not_on_the_hub_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name, said in (
        ("hf-hub:org/none", "is not cached here and cannot be downloaded"),
        ("hf-hub:not a name", "is no name of the hub: expected hf-hub:ORG/NAME"),
        (f"local-dir:{tmp_path}/gone", "there is no folder"),
        (f"local-dir:{tmp_path}", "nothing says which model it is"),
    ):
        with pytest.raises(XaikitError, match=said):
            load_tower(name)


def test_a_folder_as_the_weights_of_a_named_model(folder, clip, pixels, small_model):
    tower = quietly(small_model, f"local-dir:{folder}")
    same(tower, clip, pixels)
    prepared(tower)
    assert tower.loaded["settings"]["activation"]["from"] == "open_clip_config.json"


def test_a_config_beside_a_file_says_how_it_was_trained(folder, clip, pixels, small_model):
    tower = quietly(small_model, folder / "open_clip_model.safetensors")
    same(tower, clip, pixels)
    prepared(tower)


def test_a_config_of_another_model_beside_a_file_is_not_believed(folder, small_model):
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 12
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.warns(XaikitWarning, match="not known"):
        tower = load_tower(small_model, folder / "open_clip_model.safetensors")
    assert tower.preprocess.mean == open_clip.OPENAI_DATASET_MEAN


@pytest.mark.parametrize(
    "cropped",
    [
        {"crop_pct": 0.8, "crop_mode": "center"},
        {"crop_pct": 0.8, "crop_mode": "squash", "interpolation": "lanczos"},
        {"crop_pct": 1.0, "crop_mode": "squash"},
    ],
)
def test_a_folder_of_timm(tmp_path, pixels, cropped):
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = spread(timm.create_model("vit_tiny_patch16_224", num_classes=7, **options))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    prepared_as = PREPARED | {"input_size": [3, 16, 16]} | cropped
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 7, "model_args": options}
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": prepared_as}))
    tower = quietly(f"local-dir:{tmp_path}")
    theirs = create_transform(**resolve_data_config(prepared_as))(PICTURE)
    assert torch.equal(pixels_for(PICTURE, tower.preprocess), theirs)
    with torch.no_grad():
        torch.testing.assert_close(tower.classifier(pixels), model(pixels))


@pytest.mark.parametrize("how", ["traced", "scripted", "half"])
def test_a_torchscript_archive_is_read_and_not_run(how, clip, small_model, tmp_path, pixels):
    module = clip.half() if how == "half" else clip
    if how == "traced":
        images, words = pixels, torch.zeros(3, 77, dtype=torch.long)
        made = torch.jit.trace(module, (images, words), check_trace=False)
    else:
        made = torch.jit.script(module)
    torch.jit.save(made, tmp_path / "ViT.pt")
    tower = load_tower(small_model, tmp_path / "ViT.pt")
    assert tower.loaded["form"] == "TorchScript archive"
    assert tower.loaded["settings"]["activation"]["value"] == "quick_gelu"
    same(tower, clip.float(), pixels)


def test_shards_of_a_file(folder, clip, pixels, small_model):
    state = clip.state_dict()
    names = sorted(state)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    same(quietly(small_model, folder / "model.safetensors.index.json"), clip, pixels)


def test_positions_of_another_raster_are_interpolated_as_open_clip_does(clip, tmp_path):
    larger = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"image_size": 24}}
    (tmp_path / "larger.json").write_text(json.dumps(larger | {"quick_gelu": True}))
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    theirs = CLIP(**larger, quick_gelu=True).eval()
    open_clip.load_checkpoint(theirs, str(tmp_path / "w.pt"))
    tower = load_tower(str(tmp_path / "larger.json"), tmp_path / "w.pt")
    same(tower, theirs, torch.randn(2, 3, 24, 24))
    (note,) = tower.loaded["notes"]
    assert "position embeddings of 4 × 4 interpolated to 6 × 6, as open_clip does" in note


def test_positions_of_another_raster_are_interpolated_as_timm_does(tmp_path):
    small = spread(timm.create_model("vit_tiny_patch16_224", depth=12))
    save_file(small.state_dict(), tmp_path / "w.safetensors")
    theirs = timm.create_model("vit_tiny_patch16_384")
    timm.models.load_checkpoint(
        theirs.eval(), str(tmp_path / "w.safetensors"), filter_fn=checkpoint_filter_fn
    )
    tower = load_tower("timm/vit_tiny_patch16_384", tmp_path / "w.safetensors")
    for name, value in theirs.state_dict().items():
        assert torch.equal(tower.module.state_dict()[name], value), name
    assert "14 × 14 interpolated to 24 × 24, as timm does" in tower.loaded["notes"][0]
