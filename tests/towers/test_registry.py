"""Names: what is supported, what is refused and why."""

from __future__ import annotations

import json

import open_clip
import pytest

from xaikit.errors import UsageError, XaikitError
from xaikit.towers import describe, list_models, load_tower, resolve

REFUSED = {
    "RN50": "ModifiedResNet has no transformer blocks",
    "convnext_base": "ConvNeXt",
    "ViTamin-B": "ViTamin",
    "MobileCLIP-S1": "FastViT",
    "swin_base_patch4_window7_224": "Swin",
    "timm/resnet18": "ResNet",
    "timm/cait_s24_224": "no plain vision transformer",
    "timm/vit_base_patch16_18x2_224": "ParallelThingsBlock",
    "timm/vit_dwee_patch16_reg1_gap_256": "differential attention",
}


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in list_models()}


def test_every_open_clip_name_is_listed(rows):
    names = [name for name in open_clip.list_models() if name != "xaikit-demo"]
    assert list(rows) == ["xaikit-demo", *names]


def test_support_is_decided_by_architecture(rows):
    supported = [row for row in rows.values() if row.supported and row.name != "xaikit-demo"]
    assert sum(row.family == "native" for row in supported) >= 56
    assert sum(row.family == "timm" for row in supported) >= 45
    refused = [row for row in rows.values() if not row.supported]
    assert len(refused) >= 43
    assert all(row.reason and "\n" not in row.reason for row in refused)


def test_rows_have_the_sizes_of_the_models(rows):
    row = rows["ViT-B-16"]
    assert (row.layers, row.heads, row.tokens, row.width, row.ffn_width) == (12, 12, 197, 768, 3072)
    row = rows["EVA02-E-14-plus"]
    assert (row.layers, row.heads, row.tokens, row.width) == (64, 16, 257, 1792)
    row = rows["ViT-B-16-SigLIP"]
    assert (row.layers, row.tokens, row.prefix_tokens) == (12, 196, 0)


@pytest.mark.parametrize(
    "name", [n for n in open_clip.list_models() if n.startswith(("RN", "conv", "ViTa", "swin"))]
)
def test_refusals_are_one_line_and_name_the_model(name):
    with pytest.raises(XaikitError) as caught:
        load_tower(name, "random")
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_refusals_say_why(name, reason):
    with pytest.raises(XaikitError, match=f"^{name}: .*{reason}"):
        describe(resolve(name))


def test_unknown_names_get_suggestions():
    with pytest.raises(UsageError, match="did you mean ViT-B-16"):
        resolve("ViT-B-15")
    with pytest.raises(UsageError, match="did you mean timm/vit_tiny_patch16_224"):
        resolve("timm/vit_tiny_patch16_223")


def test_slashes_are_taken_as_open_clip_takes_them():
    assert resolve("ViT-B/32").name == "ViT-B-32"


def test_a_config_file_is_a_model(tmp_path):
    config = open_clip.get_model_config("ViT-S-32-alt")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    info = describe(resolve(str(path)))
    assert (info.model, info.width, info.layers) == (str(path), 384, 12)
    path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 224}}))
    assert resolve(str(path)).preprocess == {"size": 224}


@pytest.mark.parametrize("content", ["{", "[]", '{"embed_dim": 8}'])
def test_files_that_are_no_config_are_named(tmp_path, content):
    path = tmp_path / "odd.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"odd\.json"):
        resolve(str(path))
    with pytest.raises(UsageError, match="does not exist"):
        resolve(str(tmp_path / "none.json"))
