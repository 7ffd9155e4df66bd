"""Capturing hands over what the model computes, changes nothing and stops early."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from xaikit.errors import UsageError, XaikitError
from xaikit.towers import capture, tapping
from xaikit.towers.capture import _multihead_call


def test_gate_and_ffn_input_are_those_of_the_module(tower, pixels):
    parts = tower.blocks[1]
    seen = {}
    hooks = [
        parts.ffn.register_forward_pre_hook(lambda _m, args: seen.update(h=args[0])),
        parts.activation.register_forward_hook(lambda _m, _a, out: seen.update(act=out)),
    ]
    tower.encode(pixels)
    for hook in hooks:
        hook.remove()
    got = []
    capture(tower, pixels, ffn={1: lambda h, gate: got.append((h, gate))})
    h_l, gate = got[0]
    assert torch.equal(h_l, seen["h"])
    assert torch.equal(gate, seen["act"] > 0)
    assert h_l.shape == (3, 17, 32)
    assert gate.shape == (3, 17, 64)
    assert 0.2 < gate.float().mean() < 0.8


def test_gated_ffns_report_their_gate_branch(make, pixels):
    tower = make["eva"]()
    ffn = tower.blocks[0].ffn
    got = []
    capture(tower, pixels, ffn={0: lambda h, gate: got.append((h, gate))})
    h_l, gate = got[0]
    assert torch.equal(gate, torch.nn.functional.silu(ffn.fc1_g(h_l)) > 0)


def test_all_layers_at_once_are_as_one_by_one(tower, pixels):
    layers = range(tower.info.layers)
    together, gates = {}, {}
    capture(
        tower,
        pixels,
        ffn={i: lambda _h, gate, i=i: gates.update({i: gate}) for i in layers},
        attention={i: lambda call, i=i: together.update({i: call.logits()}) for i in layers},
    )
    assert sorted(gates) == sorted(together) == list(layers)
    for layer in layers:
        alone = []
        capture(tower, pixels, attention={layer: lambda call, a=alone: a.append(call.logits())})
        assert torch.equal(alone[0], together[layer])


def test_outputs_stay_bit_identical(tower, pixels, clean):
    before = tower.encode(pixels)
    fired = []
    with tapping(
        tower,
        ffn={0: lambda _h, _gate: fired.append("ffn")},
        attention={1: lambda call: fired.append(call.logits().shape)},
    ):
        during = tower.encode(pixels)
    assert torch.equal(before, during)
    assert fired == ["ffn", (3, 2, 17, 17)]
    assert clean(tower)


def test_later_blocks_never_run(tower, pixels):
    ran = []
    hooks = [
        parts.block.register_forward_pre_hook(lambda _m, _a, i=i: ran.append(i))
        for i, parts in enumerate(tower.blocks)
    ]
    hooks.append(
        tower.blocks[1].attention.register_forward_hook(lambda _m, _a, _o: ran.append("attended"))
    )
    capture(tower, pixels, ffn={0: lambda _h, _gate: None}, attention={1: lambda _call: None})
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1]


def test_stopping_waits_for_every_tap(tower, pixels):
    order = []
    capture(
        tower,
        pixels,
        ffn={2: lambda _h, _gate: order.append("ffn 2")},
        attention={1: lambda _call: order.append("attention 1")},
    )
    assert order == ["attention 1", "ffn 2"]


@pytest.mark.parametrize("what", ["ffn", "attention"])
def test_an_exception_in_a_tap_leaves_the_model_clean(tower, pixels, clean, what):
    before = tower.encode(pixels)

    def fail(*_args):
        raise ValueError("from the tap")

    with pytest.raises(ValueError, match="from the tap"):
        capture(tower, pixels, **{what: {1: fail}})
    assert clean(tower)
    assert torch.equal(tower.encode(pixels), before)


def test_values_are_computed_only_when_asked(native, pixels):
    calls = []
    capture(native, pixels, attention={1: calls.append})
    assert not isinstance(calls[0]._value, torch.Tensor)
    with torch.inference_mode():
        assert calls[0].value.shape == (3, 2, 17, 16)


@pytest.mark.parametrize("layer", [-1, 9])
def test_layers_out_of_range_are_named(tower, pixels, layer):
    with pytest.raises(UsageError, match=f"layer {layer} is out of range"):
        capture(tower, pixels, attention={layer: lambda _call: None})


def test_pixels_of_another_size_are_named(native):
    with pytest.raises(UsageError, match=r"takes pixels of shape \[B, 3, 16, 16\]"):
        capture(native, torch.zeros(1, 3, 8, 8), attention={1: lambda _call: None})


def test_a_tap_that_is_never_reached_is_an_error(native, pixels):
    blocks = native.module.transformer.resblocks
    native.module.transformer.resblocks = blocks[:2]
    with pytest.raises(XaikitError, match="never reached the attention of layer 3"):
        capture(native, pixels, attention={3: lambda _call: None})


def test_parallel_blocks_are_read(make, pixels):
    from timm.models.vision_transformer import ParallelScalingBlock

    tower = make["timm"](block_fn=ParallelScalingBlock)
    got = {}
    capture(
        tower,
        pixels,
        ffn={0: lambda h, gate: got.update(h=h, gate=gate)},
        attention={1: lambda call: got.update(logits=call.logits())},
    )
    block = tower.blocks[0].block
    hidden = block.in_proj(got["h"])[..., :64]
    hidden = hidden if block.mlp_bias is None else hidden + block.mlp_bias
    assert torch.equal(got["gate"], block.mlp_act(hidden) > 0)
    assert got["logits"].shape == (3, 2, 17, 17)


def test_the_stream_that_enters_a_block_is_handed_over_before_the_block_runs(tower, pixels):
    seen, got, ran = [], [], []
    block = tower.blocks[1].block
    hook = block.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    tower.encode(pixels)
    hook.remove()
    hook = block.register_forward_hook(lambda *_: ran.append("block 1"))
    capture(tower, pixels, residual={1: lambda stream: got.append(stream.clone())})
    hook.remove()
    assert torch.equal(got[0], seen[0])
    assert ran == []
    with pytest.raises(UsageError, match="layer 9 is out of range"):
        capture(tower, pixels, residual={9: lambda _stream: None})


@pytest.mark.parametrize("what", ["ffn", "attention", "residual"])
def test_what_another_thread_runs_is_not_handed_over(tower, pixels, what):
    fired = []
    with tapping(tower, **{what: {1: lambda *_: fired.append(threading.get_ident())}}):
        tower.encode(pixels)
        thread = threading.Thread(target=tower.encode, args=(pixels,))
        thread.start()
        thread.join()
    assert fired == [threading.get_ident()]


def test_stopping_waits_for_the_stream_as_well(tower, pixels):
    order = []
    capture(
        tower,
        pixels,
        ffn={0: lambda _h, _gate: order.append("ffn 0")},
        residual={2: lambda _stream: order.append("residual 2")},
    )
    assert order == ["ffn 0", "residual 2"]


def test_a_gate_at_zero_is_closed(native, pixels):
    ffn = native.blocks[1].ffn
    for parameter in ffn.c_fc.parameters():
        parameter.data.zero_()
    got = []
    capture(native, pixels, ffn={1: lambda _h, gate: got.append(gate)})
    assert not got[0].any()


def test_a_model_that_swallows_errors_stops_all_the_same(native, pixels):
    block, ran = native.blocks[2].block, []
    own = block.forward

    def swallowing(x, *rest, **more):
        try:
            return own(x, *rest, **more)
        except Exception:
            return x

    block.forward = swallowing
    hook = native.blocks[3].block.register_forward_pre_hook(lambda *_: ran.append(3))
    capture(native, pixels, attention={2: lambda _call: None})
    hook.remove()
    assert ran == []


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_queries_and_keys_of_any_tokens_are_projected_by_their_own_weights(bias, apart):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True).eval()
    if bias:
        nn.init.normal_(module.in_proj_bias)
    query, key, value = torch.randn(3, 2, 5, 8)
    key = key if apart else query
    with torch.no_grad():
        _, weights = module(query, key, value, average_attn_weights=False)
        call = _multihead_call(module, query, key, value)
        torch.testing.assert_close(call.logits().softmax(-1), weights)
        out = call.attend(call.logits()).transpose(1, 2).flatten(2)
        own, _ = module(query, key, value)
        torch.testing.assert_close(module.out_proj(out), own)


@pytest.mark.parametrize("mask", ["attn_mask", "key_padding_mask"])
def test_a_masked_module_is_refused(mask):
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens = torch.randn(2, 5, 8)
    masks = {"attn_mask": torch.zeros(5, 5), "key_padding_mask": torch.zeros(2, 5)}
    with pytest.raises(XaikitError, match="with a mask is not read"):
        _multihead_call(module, tokens, tokens, tokens, **{mask: masks[mask]})
