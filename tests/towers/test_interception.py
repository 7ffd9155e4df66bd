"""Logits are the model's own, whatever its attention module does to queries and keys."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaikit.errors import XaikitError
from xaikit.towers import AttentionCall, capture, editing, wrap_tower
from xaikit.towers.interception import intercepting


def attention_input(tower, layer, pixels):
    """What the attention module of a layer is given, float64, and its rotary table."""
    seen: dict[str, Any] = {}

    def before(_module, args, kwargs):
        seen["x"] = args[0].double()
        seen["rope"] = kwargs.get("rope")

    hook = tower.blocks[layer].attention.register_forward_pre_hook(before, with_kwargs=True)
    with torch.no_grad():
        tower.encode(pixels)
    hook.remove()
    return seen["x"], seen["rope"]


def captured_logits(tower, layer, pixels):
    got = []
    capture(tower, pixels, attention={layer: lambda call: got.append(call.logits())})
    return got[0]


def slow_logits(queries, keys):
    """``q·k/√d``, one head, one pair of tokens at a time; queries and keys ``[B, N, H, d]``."""
    batch, tokens, heads, width = queries.shape
    out = torch.zeros(batch, heads, tokens, tokens, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            for i in range(tokens):
                for j in range(tokens):
                    out[b, h, i, j] = (queries[b, i, h] * keys[b, j, h]).sum() / width**0.5
    return out


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight.double() + norm.bias.double()


def rotate(x, table, prefix):
    """Rotate interleaved pairs of every patch token by the table's angles; ``[B, N, H, d]``."""
    sin, cos = (part.double() for part in table.chunk(2, -1))
    out = x.clone()
    for token in range(prefix, x.shape[1]):
        s, c = sin[token - prefix], cos[token - prefix]
        even, odd = x[:, token, :, 0::2], x[:, token, :, 1::2]
        out[:, token, :, 0::2] = even * c[0::2] - odd * s[0::2]
        out[:, token, :, 1::2] = odd * c[1::2] + even * s[1::2]
    return out


def test_native_logits_are_those_of_the_weights(native, pixels):
    x, _ = attention_input(native, 2, pixels[:1])
    module = native.blocks[2].attention
    projected = x @ module.in_proj_weight.double().T + module.in_proj_bias.double()
    q, k, _ = (part.unflatten(-1, (2, 16)) for part in projected.chunk(3, -1))
    torch.testing.assert_close(
        captured_logits(native, 2, pixels[:1]).double(), slow_logits(q, k), rtol=1e-5, atol=1e-5
    )


def test_normed_queries_and_keys_are_read_after_the_norm(make, pixels):
    tower = make["timm"]()
    x, _ = attention_input(tower, 1, pixels[:1])
    module = tower.blocks[1].attention
    projected = x @ module.qkv.weight.double().T + module.qkv.bias.double()
    q, k, _ = (part.unflatten(-1, (2, 16)) for part in projected.chunk(3, -1))
    expected = slow_logits(layer_norm(q, module.q_norm), layer_norm(k, module.k_norm))
    torch.testing.assert_close(
        captured_logits(tower, 1, pixels[:1]).double(), expected, rtol=1e-5, atol=1e-5
    )


def test_rotary_embedding_is_in_the_logits(make, pixels):
    tower = make["eva"]()
    x, table = attention_input(tower, 1, pixels[:1])
    module = tower.blocks[1].attention
    q = (x @ module.q_proj.weight.double().T + module.q_proj.bias.double()).unflatten(-1, (2, 16))
    k = (x @ module.k_proj.weight.double().T).unflatten(-1, (2, 16))
    expected = slow_logits(rotate(q, table, 1), rotate(k, table, 1))
    assert not torch.allclose(expected, slow_logits(q, k), atol=0.1)
    torch.testing.assert_close(
        captured_logits(tower, 1, pixels[:1]).double(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"attn_mask": torch.rand(4, 4, generator=torch.Generator().manual_seed(3)) < 0.7},
        {"attn_mask": torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(4))},
        {"scale": 0.3},
    ],
)
def test_every_argument_of_the_call_is_in_the_logits(options):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 4, 8, generator=generator).unbind(0)
    if "attn_mask" in options and options["attn_mask"].dtype == torch.bool:
        options["attn_mask"].fill_diagonal_(True)
    call = AttentionCall.from_arguments(q, k, v, **options)
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(call.attend(call.logits()), expected)


def test_grouped_keys_are_expanded():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, 5, 8, generator=generator)
    k, v = torch.randn(2, 1, 2, 5, 8, generator=generator).unbind(0)
    call = AttentionCall.from_arguments(q, k, v, enable_gqa=True)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(call.attend(call.logits()), expected)


def test_pooling_attention_is_not_taken_for_the_block(make, pixels):
    tower = make["timm"](global_pool="map", class_token=False)
    got = []
    capture(tower, pixels, attention={2: lambda call: got.append(call.logits().shape)})
    assert got == [(3, 2, 16, 16)]
    with torch.no_grad(), editing(tower, 2, lambda _call, logits: logits):
        edited = tower.encode(pixels)
    torch.testing.assert_close(edited, tower.encode(pixels))


def test_another_thread_is_undisturbed(native, pixels):
    before = native.encode(pixels)
    elsewhere = {}

    def other():
        elsewhere["out"] = native.encode(pixels)

    with torch.no_grad(), editing(native, 0, lambda _call, logits: logits * 0):
        here = native.encode(pixels)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert torch.equal(elsewhere["out"], before)
    assert not torch.allclose(here, before, atol=1e-3)


class TwoCalls(nn.Module):
    """Makes two attention calls, as differential attention does."""

    def forward(self, x):
        x = x.unsqueeze(1)
        once = F.scaled_dot_product_attention(x, x, x)
        return (once - F.scaled_dot_product_attention(x, x, x)).squeeze(1)


class NoCall(nn.Module):
    """Writes attention out."""

    def forward(self, x):
        return (x @ x.transpose(-2, -1)).softmax(-1) @ x


@pytest.mark.parametrize(("module", "calls"), [(TwoCalls(), 2), (NoCall(), 0)])
def test_modules_without_exactly_one_call_are_refused(module, calls):
    with (
        intercepting(module, lambda _call: None, "some-model layer 0"),
        pytest.raises(XaikitError, match=f"^some-model layer 0: .* {calls} times"),
    ):
        module(torch.randn(1, 4, 8))


def test_differential_attention_is_refused_by_name():
    from timm.models.vision_transformer import VisionTransformer

    module = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2, attn_layer="diff"
    )
    with pytest.raises(XaikitError, match=r"^odd: differential attention"):
        wrap_tower(module, model="odd", family="timm")


def test_unfused_modules_are_read_as_well(make, pixels):
    tower = make["timm"]()
    module = tower.module
    for block in module.blocks:
        block.attn.fused_attn = False
    again = wrap_tower(module, model="unfused", family="timm")
    torch.testing.assert_close(
        captured_logits(again, 1, pixels), captured_logits(make["timm"](), 1, pixels)
    )


@pytest.mark.parametrize("shape", [(3, 2, 5, 5), (1, 2, 5, 5), (3, 1, 5, 5), (5, 5)])
def test_logits_of_some_heads_have_their_bias_too(shape):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 2, 5, 4, generator=generator)
    bias = torch.randn(*shape, generator=generator)
    call = AttentionCall(query, key, query, bias, 0.5)
    expected = 0.5 * query @ key.transpose(-2, -1) + bias
    for images in (slice(None), slice(1, 3)):
        for heads in (slice(None), slice(1, 2)):
            found = call.logits_of(images, heads)
            torch.testing.assert_close(found, expected[images, heads].transpose(0, 1))
            assert torch.equal(found, call.logits()[images, heads].transpose(0, 1))


def test_dropout_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(XaikitError, match="dropout is on: put the model into evaluation mode"):
        AttentionCall.from_arguments(q, q, q, dropout_p=0.1)


class OneCall(nn.Module):
    """Attends once."""

    def forward(self, x):
        x = x.unsqueeze(1)
        return F.scaled_dot_product_attention(x, x, x).squeeze(1)


def test_what_a_handler_computes_itself_is_no_call_of_the_module():
    module, handled = OneCall(), []

    def handler(call):
        own = F.scaled_dot_product_attention(call.query, call.key, call.value)
        handled.append(own)

    tokens = torch.randn(1, 4, 8)
    with intercepting(module, handler, "some-model layer 0"):
        out = module(tokens)
    assert len(handled) == 1
    assert torch.equal(out, module(tokens))
    torch.testing.assert_close(handled[0].squeeze(1), out)


def test_rows_that_are_silent_give_nothing_whoever_silenced_them():
    q, k, v = torch.randn(3, 2, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    call = AttentionCall(q, k, v)
    whole = call.attend(call.logits())
    for row in (1, 3):
        rows = torch.zeros(2, 2, 4, dtype=torch.bool)
        rows[0, 1, row] = True
        call.silence(rows)
    out = call.attend(call.logits())
    assert not out[0, 1, [1, 3]].any()
    out[0, 1, [1, 3]] = whole[0, 1, [1, 3]]
    assert torch.equal(out, whole)
