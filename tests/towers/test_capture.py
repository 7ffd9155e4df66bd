"""Capturing hands over what the model computes, changes nothing and stops early."""

from __future__ import annotations

import pytest
import torch

from xaikit.errors import UsageError, XaikitError
from xaikit.towers import capture, tapping


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
