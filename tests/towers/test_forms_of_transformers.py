"""Models of transformers, in the forms it and its users save them, give its own attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file

from xaikit.errors import UsageError, XaikitError, XaikitWarning
from xaikit.images.transform import pixels_for
from xaikit.towers import Tower, load_tower
from xaikit.towers.activations import activation_of
from xaikit.towers.hf_processors import processor_settings
from xaikit.towers.settings import to_preprocess

from .conftest import PICTURE, logits_of, quietly, spread

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 32, "vocab_size": 99}
DINO = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
CLIP = {"vision_config": SIZES, "text_config": TEXT | {"vocab_size": 49408}, "projection_dim": 8}
GELU = CLIP | {"vision_config": SIZES | {"hidden_act": "gelu"}}
SIGLIP = {"vision_config": SIZES, "text_config": TEXT}
SEVEN = {"num_labels": 7}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "CLIPVisionModel": ("CLIP", "CLIPVision", SIZES),
    "CLIPVisionModelWithProjection": ("CLIP", "CLIPVision", SIZES | {"projection_dim": 8}),
    "CLIPModel": ("CLIP", "CLIP", CLIP),
    "CLIPModel with GELU": ("CLIP", "CLIP", GELU),
    "CLIPForImageClassification": ("CLIP", "CLIP", CLIP | SEVEN),
    "SiglipModel": ("Siglip", "Siglip", SIGLIP),
    "SiglipVisionModel": ("Siglip", "SiglipVision", SIZES),
    "SiglipVisionModel without a head": (
        "Siglip",
        "SiglipVision",
        SIZES | {"vision_use_head": False},
    ),
    "SiglipForImageClassification": ("Siglip", "Siglip", SIGLIP | SEVEN),
    "ViTModel": ("ViT", "ViT", SIZES),
    "ViTModel without biases": ("ViT", "ViT", SIZES | {"qkv_bias": False}),
    "ViTForImageClassification": ("ViT", "ViT", SIZES | SEVEN),
    "DeiTModel": ("DeiT", "DeiT", SIZES),
    "DeiTForImageClassification": ("DeiT", "DeiT", SIZES | SEVEN),
    "DeiTForImageClassificationWithTeacher": ("DeiT", "DeiT", SIZES | SEVEN),
    "Dinov2Model": ("Bit", "Dinov2", DINO),
    "Dinov2Model of another raster": ("Bit", "Dinov2", DINO | {"image_size": 28}),
    "Dinov2Model with SwiGLU": ("Bit", "Dinov2", DINO | {"use_swiglu_ffn": True}),
    "Dinov2ForImageClassification": ("Bit", "Dinov2", DINO | SEVEN),
    "Dinov2WithRegistersModel": ("Bit", "Dinov2WithRegisters", DINO),
}
"""Class of the model, with what is special after it: processor, config, and the config's values."""
PREPARED = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
CROPPED = {"crop_size": {"height": 16, "width": 16}, "do_center_crop": True}
PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIP": {"size": {"shortest_edge": 16}, **CROPPED},
    "Siglip": {"size": {"height": 16, "width": 16}},
    "ViT": {"size": {"height": 16, "width": 16}},
    "DeiT": {"size": {"height": 18, "width": 18}, **CROPPED},
    "Bit": {"size": {"shortest_edge": 20}, **CROPPED},
}


def built(kind: str) -> Any:
    _, config, values = KINDS[kind]
    model = getattr(tf, kind.split()[0])(getattr(tf, f"{config}Config")(**values))
    return spread(model)


def processor(family: str, **options: Any) -> Any:
    """An image processor that resizes with Pillow, as all of them did before version 5."""
    return getattr(tf, f"{family}ImageProcessorPil")(**PROCESSORS[family] | PREPARED | options)


def written(own: Any) -> dict[str, Any]:
    """A processor's config as its file has it."""
    return json.loads(own.to_json_string())


def as_transformers_does(model: Any, family: str, folder: Path) -> None:
    model.save_pretrained(folder)
    processor(family).save_pretrained(folder)


def as_shards(model: Any, family: str, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="20KB")
    processor(family).save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file()


def by_hand(model: Any, family: str, folder: Path) -> None:
    """The module's own names, and the processor inside one of images and texts."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    whole = {"image_processor": written(processor(family)), "processor_class": "Processor"}
    (folder / "processor_config.json").write_text(json.dumps(whole))


def agree(tower: Tower, model: Any, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """The attention of all layers is what transformers says its own is."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(theirs, output_attentions=True).attentions
    found = [each.softmax(-1) for each in logits_of(tower, ours)]
    torch.testing.assert_close(found, list(attentions), rtol=0, atol=1e-5)


def same_outputs(tower: Tower, model: Any, pixels: torch.Tensor) -> None:
    """What transformers hands out of its model is what the tower does."""
    kind = type(model).__name__
    with torch.no_grad():
        if hasattr(model, "get_image_features"):
            features = model.get_image_features(pixels)
            ours, theirs = tower.encode(pixels), getattr(features, "pooler_output", features)
        elif kind in ("ViTForImageClassification", "DeiTForImageClassificationWithTeacher"):
            ours, theirs = tower.classifier(pixels), model(pixels).logits
        elif kind.endswith("ForImageClassification"):
            (note,) = tower.loaded["notes"]
            assert "its classifier of 7 classes is left out" in note
            return
        elif kind == "CLIPVisionModelWithProjection":
            ours, theirs = tower.encode(pixels), model(pixels).image_embeds
        elif kind in ("CLIPVisionModel", "SiglipVisionModel"):
            out = model(pixels)
            pooled = out.pooler_output
            mean = out.last_hidden_state.mean(1)
            ours, theirs = tower.encode(pixels), mean if pooled is None else pooled
        elif kind == "DeiTModel":
            ours, theirs = tower.encode(pixels), model(pixels).last_hidden_state[:, :2].mean(1)
        else:
            ours, theirs = tower.encode(pixels), model(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("save", [as_transformers_does, by_hand], ids=lambda each: each.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers(kind, save, tmp_path, pixels):
    family, model = KINDS[kind][0], built(kind)
    save(model, family, tmp_path)
    tower = quietly(f"local-dir:{tmp_path}")
    theirs = processor(family)(PICTURE, return_tensors="pt")["pixel_values"]
    ours = pixels_for(PICTURE, tower.preprocess)[None]
    assert torch.equal(ours, theirs)
    whole = kind.split()[0] in ("CLIPModel", "SiglipModel")
    agree(tower, model.vision_model if whole else model, ours, theirs)
    same_outputs(tower, model, pixels)


def test_shards_of_transformers(tmp_path, pixels):
    model = built("ViTForImageClassification")
    as_shards(model, "ViT", tmp_path)
    same_outputs(quietly(f"local-dir:{tmp_path}"), model, pixels)


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("DeiT", {"size": 20, "crop_size": 16, "do_center_crop": True}),
    ("CLIP", {"size": 20, "crop_size": 16}),
    ("CLIP", {"resample": 1}),
    ("ViT", {"size": 16, "resample": 4, "rescale_factor": 1 / 127.5}),
    ("ViT", {"do_normalize": False}),
    ("Siglip", {"resample": 5}),
    ("Bit", {"resample": 2}),
    ("DeiT", {"do_center_crop": False, "size": {"height": 16, "width": 16}}),
]


@pytest.mark.parametrize(("family", "options"), WAYS)
def test_pictures_are_prepared_as_transformers_does(family, options):
    own = processor(family, **options)
    # Files of version 4 and before have bare numbers for sizes, of version 5 what they mean.
    for config in (written(own), written(own) | options):
        known = to_preprocess(processor_settings(config, (16, 16)), (16, 16))
        theirs = own(PICTURE, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(pixels_for(PICTURE, known), theirs)


def test_pixels_that_are_not_scaled():
    own = processor("ViT", do_rescale=False)
    known = to_preprocess(processor_settings(written(own), (16, 16)), (16, 16))
    theirs = own(PICTURE, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(pixels_for(PICTURE, known), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"do_resize": False}, "of no fixed size"),
        ({"size": {"max_height": 16, "max_width": 16}}, "of no fixed size"),
        ({"resample": 9}, "resample 9 is no filter"),
    ],
)
def test_processors_that_do_something_else_are_refused(options, said):
    config = written(processor("ViT")) | options
    with pytest.raises(UsageError, match=said):
        processor_settings(config, (16, 16))


def test_weights_that_no_rule_knows_are_named_and_not_dropped(tmp_path):
    model = built("ViTModel")
    as_transformers_does(model, "ViT", tmp_path)
    state = model.state_dict() | {"encoder.layer.0.attention.q_norm.weight": torch.ones(16)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(XaikitError, match=r"unexpected encoder\.layer\.0\.attention\.q_norm"):
        load_tower(f"local-dir:{tmp_path}")


def test_a_file_of_transformers_in_a_model_of_open_clip(small_model, tmp_path, pixels):
    larger = {"num_hidden_layers": 3, "intermediate_size": 128}
    text = TEXT | {"hidden_size": 16, "intermediate_size": 64, "vocab_size": 49408}
    config = tf.CLIPConfig(vision_config=SIZES | larger, text_config=text, projection_dim=8)
    model = spread(tf.CLIPModel(config))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.warns(XaikitWarning, match="mean, std"):
        tower = load_tower(
            small_model, tmp_path / "model.safetensors", quick_gelu=True, with_text=True
        )
    agree(tower, model.vision_model, pixels, pixels)
    assert tower.loaded["names"] == "transformers' CLIPModel"
    tokens = tower.text.tokenize(["a dog", "a cat"])
    with torch.no_grad():
        ours = tower.text.model.encode_text(tokens)
        theirs = model.get_text_features(tokens)
    theirs = getattr(theirs, "pooler_output", theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_file_of_siglip_alone_brings_its_activation(tmp_path):
    sizes = {"image_size": 224, "patch_size": 16, "hidden_size": 768, "num_attention_heads": 12}
    sizes |= {"intermediate_size": 3072, "num_hidden_layers": 12}
    with torch.device("meta"):
        shapes = tf.SiglipVisionModel(tf.SiglipVisionConfig(**sizes)).state_dict()
    state = {name: torch.full(value.shape, 0.01) for name, value in shapes.items()}
    save_file(state, tmp_path / "s.safetensors")
    tower = quietly("ViT-B-16-SigLIP", tmp_path / "s.safetensors")
    assert tower.preprocess.mean == (0.5, 0.5, 0.5)
    assert tower.preprocess.mode == "squash"
    assert tower.loaded["settings"]["activation"] == {
        "value": "gelu_tanh",
        "from": "transformers' SiglipModel",
    }
    assert activation_of(tower.blocks[0].activation) == "gelu_tanh"
