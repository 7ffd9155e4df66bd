"""The page of one image: its numbers are the model's, and names stay text."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image

from xaikit.images.scenes import draw
from xaikit.images.transform import pixels_for
from xaikit.report.page.attention import attended, head_figures, packed_attention
from xaikit.report.page.explained import _listed, _provenance, sentences
from xaikit.towers import Tower, capture, load_tower


@pytest.fixture(scope="module")
def tower() -> Tower:
    return load_tower("xaikit-demo")


def test_every_layer_and_head_is_the_models(tower: Tower) -> None:
    pixels = pixels_for(draw(0, 5).image(), tower.preprocess)[None]
    found = attended(tower, pixels).attention
    logits: dict[int, torch.Tensor] = {}
    taps = {
        at: lambda call, at=at: logits.setdefault(at, call.logits()[0].double()) for at in range(6)
    }
    capture(tower, pixels, attention=taps)
    for layer, own in logits.items():
        rows = own.exp() / own.exp().sum(-1, keepdim=True)
        np.testing.assert_allclose(found[layer], rows.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)


def unpacked(layer: dict[str, str], heads: int, tokens: int, prefix: int) -> np.ndarray:
    """What the page's script makes of a layer."""
    rows = np.frombuffer(zlib.decompress(base64.b64decode(layer["rows"])), np.uint8)
    tops, before = (
        np.frombuffer(base64.b64decode(layer[key]), "<f4") for key in ("tops", "prefix")
    )
    patches = (rows.reshape(heads, tokens, tokens - prefix) / 255.0) ** 2
    patches = patches * tops.reshape(heads, tokens, 1)
    return np.concatenate([before.reshape(heads, tokens, prefix), patches], -1)


def test_packed_rows_keep_small_values_beside_a_prefix_token_that_takes_nearly_all() -> None:
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.full(12, 0.5), size=(2, 3, 12)) * 0.01
    attention[..., 0] += 0.99
    packed, least = packed_attention(attention.astype(np.float32), 2)
    assert least == 0.0
    for own, layer in zip(attention, packed, strict=True):
        again = unpacked(layer, 3, 12, 2)
        tops = own[..., 2:].max(-1, keepdims=True)
        assert (np.abs(again - own)[..., 2:] <= 0.0041 * tops + 1e-7).all()
        np.testing.assert_allclose(again[..., :2], own[..., :2], rtol=1e-6)


def test_a_page_that_would_be_too_large_leaves_out_what_is_least() -> None:
    rng = np.random.default_rng(1)
    attention = rng.dirichlet(np.full(40, 0.05), size=(2, 2, 40)).astype(np.float32)
    whole, _ = packed_attention(attention, 0)
    most = sum(len(base64.b64decode(layer["rows"])) for layer in whole) - 1
    packed, least = packed_attention(attention, 0, most)
    assert least > 0
    again = np.stack([unpacked(layer, 2, 40, 0) for layer in packed])
    tops = attention.max(-1, keepdims=True)
    assert (again[attention < least * tops] == 0).all()
    assert sum(len(base64.b64decode(layer["rows"])) for layer in packed) <= most


def test_figures_of_heads_are_means_over_the_patches_queries() -> None:
    rng = np.random.default_rng(2)
    attention = rng.dirichlet(np.ones(7), size=(1, 2, 7))
    for record in head_figures(attention, 1, (2, 3)):
        rows = attention[0, record["head"], 1:]
        places = [(at // 3, at % 3) for at in range(6)]
        entropies, far, on = [], 0.0, 0.0
        for query, row in enumerate(rows):
            entropies.append(-sum(p * np.log(p) for p in row))
            for key, p in enumerate(row[1:]):
                far += p * np.hypot(*np.subtract(places[query], places[key]))
                on += p
        assert record["prefix"] == pytest.approx(np.mean([row[0] for row in rows]))
        assert record["itself"] == pytest.approx(np.mean([r[1 + q] for q, r in enumerate(rows)]))
        assert record["tokens"] == pytest.approx(np.exp(np.mean(entropies)))
        assert record["distance"] == pytest.approx(far / on)


def test_what_is_said_of_heads_and_of_prefix_tokens_is_of_the_extreme_ones() -> None:
    """Patches' attention to the prefix, not the prefix's to the patches."""
    attention = np.zeros((2, 1, 5, 5))
    attention[0, 0, 1:, 0], attention[0, 0, 1:, 1] = 0.25, 0.75
    attention[1, 0, 1:, 0], attention[1, 0, 1:, 4] = 0.75, 0.25
    attention[:, 0, 0, 0] = 1.0
    heads = [
        {"layer": 0, "head": 0, "distance": 3.5, "tokens": 1.0},
        {"layer": 1, "head": 2, "distance": 0.5, "tokens": 9.0},
        {"layer": 4, "head": 1, "distance": 2.0, "tokens": 20.0},
    ]
    info = Some(prefix_tokens=1, prefix_kinds=("class token",))
    classes = [{"class": "cat\x1b[31m", "p": 0.75}, {"class": "dog", "p": 0.2}]
    found: Any = Some(own=None, tower=Some(info=info), seen=Some(attention=attention), heads=heads)
    found.classes = classes
    first, prefix, last = sentences(found)
    assert first.startswith("The model calls it “cat")
    assert "\x1b" not in first
    assert "(75%); then “dog” (20%)." in first
    expected = "Patches give 50% of their attention to the class token, the most in layer 1 (75%)."
    assert prefix == expected
    assert "layer 1 head 2 looks closest by (0.5 patches away on average)" in last
    assert "layer 0 head 0 farthest (3.5)" in last


def test_registers_are_counted_and_other_prefix_tokens_named() -> None:
    assert _listed(("class token", "register 1", "register 2")) == "class token and the 2 registers"
    assert _listed(("register 1",)) == "1 register"


def test_where_the_image_came_from_is_text(tower: Tower) -> None:
    found: Any = Some(name="a\x1b[31mb", picture=Image.new("RGB", (9, 7)), tower=tower, digest="d")
    rows = dict(_provenance(found))
    assert "\x1b" not in rows["image"]
    assert rows["its size"] == "9 × 7 pixels"
    assert rows["fingerprint of the weights"] == tower.weights_fingerprint


def test_chances_of_classes_add_up_to_one_over_all_of_them() -> None:
    """Of a model with a head; the largest come first."""
    headed = load_tower("timm/vit_tiny_patch16_224", "random")
    pixels = pixels_for(draw(0, 5).image(), headed.preprocess)[None]
    with torch.inference_mode():
        logits = headed.outputs(pixels).class_logits[0].double()
    expected = logits.softmax(-1).topk(5)
    found = attended(headed, pixels).classes
    assert [at for at, _ in found] == expected.indices.tolist()
    assert [chance for _, chance in found] == pytest.approx(expected.values.tolist(), rel=1e-4)


def test_the_command_writes_page_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, plot = tmp_path / "one.html", tmp_path / "one.svg"
    assert run("explain", "demo/0/000003", "--out", str(out), "--plot", str(plot), "--json") == 0
    said = capsys.readouterr().out
    assert '"heads"' in said
    text = out.read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in text
    assert not re.search("(src|href)=.http", text)
    assert plot.read_text(encoding="utf-8").count("<image") == 25
    assert run("explain", str(tmp_path / "no.png"), "--out", str(out)) == 2
    assert "such as demo/0/000000" in capsys.readouterr().err
    # Of a run there is a picture of this name as well.
    both = ["--out", str(out), "--plot", str(out.with_suffix(".png"))]
    assert run("explain", "demo/0/000003", "--run", str(tmp_path), *both) == 2


def test_a_photo_whose_name_is_markup_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<!--.png"
    Image.effect_noise((70, 60), 40).convert("RGB").save(path)
    assert run("explain", str(path), "--out", str(tmp_path / "x.html"), "--quiet") == 0
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
