"""Every form in which weights are handed around gives the logits of the module they came from."""

from __future__ import annotations

import json
import warnings
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from xaikit.errors import XaikitError, XaikitWarning
from xaikit.towers import Tower, capture, load_tower

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2} | {
    "intermediate_size": 32
}
CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPARED = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}


def spread(module: nn.Module) -> nn.Module:
    """Weights that leave nothing trivial, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.2 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
        centre = 1.0 if parameter.ndim < 2 and "bias" not in name else 0.0
        parameter.data = centre + scale * noise
    return module.eval()


def logits(tower: Tower, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Attention logits of all layers."""
    found: dict[int, torch.Tensor] = {}
    taps = {n: lambda call, n=n: found.update({n: call.logits()}) for n in range(tower.info.layers)}
    capture(tower, pixels, attention=taps)
    return [found[layer] for layer in sorted(found)]


def attentions(model: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    """What transformers says its attention is."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return list(model(pixels, output_attentions=True).attentions)


def agree(tower: Tower, model: Any, pixels: torch.Tensor) -> None:
    own = logits(tower, pixels)
    theirs = attentions(model, pixels)
    assert len(own) == len(theirs)
    for ours, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(ours.softmax(-1), other, rtol=0, atol=1e-5)


def quietly(*args: Any, **options: Any) -> Tower:
    """Load where everything is known: a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", XaikitWarning)
        return load_tower(*args, **options)


PROCESSORS = {
    "clip": {
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True,
        "resample": 3,
    },
    "siglip": {"size": {"height": 16, "width": 16}, "resample": 3},
    "vit": {"size": {"height": 16, "width": 16}, "resample": 2},
    "dinov2": {
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True,
        "resample": 3,
    },
}
EXPECTED = {
    "clip": ("shortest", None, "bicubic"),
    "siglip": ("squash", None, "bicubic"),
    "vit": ("squash", None, "bilinear"),
    "dinov2": ("shortest", 20, "bicubic"),
}


def saved(model: Any, kind: str, folder: Any) -> Any:
    model = spread(model)
    model.save_pretrained(folder)
    processor = PROCESSORS[kind] | {"image_mean": PREPARED["mean"], "image_std": PREPARED["std"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def makers() -> dict[str, tuple[str, Any]]:
    tf = pytest.importorskip("transformers")
    vision = SIZES
    siglip_text = TEXT | {"hidden_size": 32}
    dino = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
    return {
        "CLIPVisionModel": ("clip", lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**vision))),
        "CLIPModel": (
            "clip",
            lambda: tf.CLIPModel(
                tf.CLIPConfig(vision_config=vision, text_config=TEXT, projection_dim=8)
            ),
        ),
        "CLIPModel with GELU": (
            "clip",
            lambda: tf.CLIPModel(
                tf.CLIPConfig(
                    vision_config=vision | {"hidden_act": "gelu"},
                    text_config=TEXT,
                    projection_dim=8,
                )
            ),
        ),
        "SiglipModel": (
            "siglip",
            lambda: tf.SiglipModel(
                tf.SiglipConfig(vision_config=vision, text_config=siglip_text | {"vocab_size": 99})
            ),
        ),
        "SiglipVisionModel": (
            "siglip",
            lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**vision)),
        ),
        "ViTModel": ("vit", lambda: tf.ViTModel(tf.ViTConfig(**vision))),
        "ViTForImageClassification": (
            "vit",
            lambda: tf.ViTForImageClassification(tf.ViTConfig(**vision, num_labels=7)),
        ),
        "DeiTForImageClassificationWithTeacher": (
            "vit",
            lambda: tf.DeiTForImageClassificationWithTeacher(tf.DeiTConfig(**vision, num_labels=7)),
        ),
        "Dinov2Model": ("dinov2", lambda: tf.Dinov2Model(tf.Dinov2Config(**dino))),
        "Dinov2Model of another raster": (
            "dinov2",
            lambda: tf.Dinov2Model(tf.Dinov2Config(**dino | {"image_size": 28})),
        ),
        "Dinov2Model with SwiGLU": (
            "dinov2",
            lambda: tf.Dinov2Model(tf.Dinov2Config(**dino, use_swiglu_ffn=True)),
        ),
        "Dinov2WithRegistersModel": (
            "dinov2",
            lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**dino)),
        ),
    }


KINDS = (
    "CLIPVisionModel",
    "CLIPModel",
    "CLIPModel with GELU",
    "SiglipModel",
    "SiglipVisionModel",
    "ViTModel",
    "ViTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "Dinov2Model",
    "Dinov2Model of another raster",
    "Dinov2Model with SwiGLU",
    "Dinov2WithRegistersModel",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers(kind, tmp_path, pixels):
    family, make = makers()[kind]
    model = saved(make(), family, tmp_path)
    tower = quietly(f"local-dir:{tmp_path}")
    agree(tower, getattr(model, "vision_model", model), pixels)
    mode, resize, interpolation = EXPECTED[family]
    found = tower.preprocess
    assert (found.mode, found.resize, found.interpolation) == (mode, resize, interpolation)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with torch.no_grad():
        out, ours = model(pixels) if not kind.startswith(("CLIPM", "SiglipM")) else None, None
        if hasattr(model, "get_image_features"):
            features = model.get_image_features(pixels)
            ours = tower.encode(pixels)
            theirs = getattr(features, "pooler_output", features)
        elif hasattr(out, "logits"):
            ours, theirs = tower.classifier(pixels), out.logits
        elif family in ("clip", "siglip"):
            ours, theirs = tower.encode(pixels), out.pooler_output
        else:
            ours, theirs = tower.encode(pixels), out.last_hidden_state[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_file_of_transformers_in_a_model_of_open_clip(small_model, tmp_path, pixels):
    tf = pytest.importorskip("transformers")
    config = tf.CLIPConfig(
        vision_config=SIZES | {"num_hidden_layers": 3, "intermediate_size": 128},
        text_config=TEXT | {"intermediate_size": 64},
        projection_dim=8,
    )
    model = spread(tf.CLIPModel(config))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    tower = load_tower(small_model, tmp_path / "model.safetensors", quick_gelu=True, with_text=True)
    agree(tower, model.vision_model, pixels)
    assert tower.loaded["names"] == "transformers' CLIPModel"
    tokens = tower.text.tokenize(["a dog", "a cat"])
    with torch.no_grad():
        ours = tower.text.model.encode_text(tokens)
        theirs = model.get_text_features(tokens)
    theirs = getattr(theirs, "pooler_output", theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_file_of_siglip_alone_brings_its_activation(tmp_path, pixels):
    tf = pytest.importorskip("transformers")
    model = spread(
        tf.SiglipVisionModel(
            tf.SiglipVisionConfig(
                **SIZES
                | {
                    "image_size": 224,
                    "patch_size": 16,
                    "hidden_size": 768,
                    "num_attention_heads": 12,
                    "intermediate_size": 3072,
                    "num_hidden_layers": 12,
                }
            )
        )
    )
    save_file(dict(model.state_dict()), tmp_path / "s.safetensors")
    tower = quietly("ViT-B-16-SigLIP", tmp_path / "s.safetensors")
    assert tower.preprocess.mean == (0.5, 0.5, 0.5)
    assert tower.preprocess.mode == "squash"
    assert tower.loaded["settings"]["activation"] == {
        "value": "gelu_tanh",
        "from": "transformers' SiglipModel",
    }
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        theirs = model(images).pooler_output
    torch.testing.assert_close(tower.encode(images), theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture
def clip() -> CLIP:
    return spread(CLIP(**CONFIG, quick_gelu=True))


def same(tower: Tower, clip: CLIP, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        theirs = clip.encode_image(pixels)
    torch.testing.assert_close(tower.encode(pixels), theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture
def folder(clip, tmp_path):
    """A repository as open_clip writes it."""
    root = tmp_path / "repository"
    root.mkdir()
    config = {"model_cfg": CONFIG | {"quick_gelu": True}, "preprocess_cfg": PREPARED}
    (root / "open_clip_config.json").write_text(json.dumps(config))
    save_file(clip.state_dict(), root / "open_clip_model.safetensors")
    return root


def prepared(tower: Tower) -> None:
    assert tower.preprocess.mean == (0.1, 0.2, 0.3)
    assert tower.preprocess.std == (0.4, 0.5, 0.6)
    assert tower.preprocess.interpolation == "bilinear"


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


def test_a_folder_of_timm(tmp_path, pixels):
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = spread(timm.create_model("vit_tiny_patch16_224", num_classes=7, **options))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    prepared_as = PREPARED | {"crop_pct": 0.8, "crop_mode": "center", "input_size": [3, 16, 16]}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 7, "model_args": options}
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": prepared_as}))
    tower = quietly(f"local-dir:{tmp_path}")
    prepared(tower)
    assert tower.preprocess.resize == 20
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
