"""Edits act inside the real forward pass, carry gradients and can be repeated cheaply."""

from __future__ import annotations

import pytest
import torch

from xaikit.errors import UsageError, XaikitError
from xaikit.towers import BlockCache, capture, editing


def halve(_call, logits):
    return logits * 0.5


def test_an_identity_edit_changes_nothing(tower, pixels, clean):
    with torch.no_grad():
        before = tower.encode(pixels)
        for layer in range(tower.info.layers):
            with editing(tower, layer, lambda _call, logits: logits):
                torch.testing.assert_close(tower.encode(pixels), before)
    assert clean(tower)
    assert torch.equal(tower.encode(pixels), before)


def test_attention_follows_the_edited_logits(tower, pixels):
    """With all attention on one token, every token gets that token's value and nothing else."""
    got = []
    hook = tower.blocks[1].attention.register_forward_hook(
        lambda _m, _a, out: got.append(out[0] if isinstance(out, tuple) else out)
    )

    def only_token_five(_call, logits):
        logits[..., :5] = logits[..., 6:] = -torch.inf
        return logits

    with torch.no_grad():
        tower.encode(pixels)
        with editing(tower, 1, only_token_five):
            tower.encode(pixels)
    hook.remove()
    before, after = got
    torch.testing.assert_close(after, after[:, :1].expand_as(after))
    assert not torch.allclose(before, before[:, :1].expand_as(before), atol=1e-2)


def test_only_blocks_from_the_edited_one_on_change(tower, pixels):
    def logits(layer):
        got = []
        capture(tower, pixels, attention={layer: lambda call: got.append(call.logits())})
        return got[0]

    before = [logits(layer) for layer in range(3)]
    with editing(tower, 1, halve):
        after = [logits(layer) for layer in range(3)]
    assert torch.equal(before[0], after[0])
    # What a tap reads is what the model computed, before any edit of that same layer.
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[2], after[2], atol=1e-3)


def test_edits_of_one_layer_compose(tower, pixels):
    with torch.no_grad():
        with editing(tower, 1, halve), editing(tower, 1, lambda _call, logits: logits - 3):
            both = tower.encode(pixels)
        with editing(tower, 1, lambda _call, logits: (logits - 3) * 0.5):
            once = tower.encode(pixels)
    torch.testing.assert_close(both, once)


def test_gradients_through_an_edit_are_those_of_differences(tower, pixels):
    direction = torch.randn(2, 17, 17, generator=torch.Generator().manual_seed(5))
    weights = torch.randn(tower.encode(pixels).shape, generator=torch.Generator().manual_seed(6))

    def loss(amount):
        with editing(tower, 1, lambda _call, logits: logits + amount * direction):
            return (tower.encode(pixels) * weights).sum()

    amount = torch.zeros((), requires_grad=True)
    loss(amount).backward()
    with torch.no_grad():
        step = 1e-2
        numeric = (loss(step) - loss(-step)) / (2 * step)
    assert amount.grad is not None
    assert amount.grad.abs() > 1e-3
    torch.testing.assert_close(amount.grad, numeric, rtol=2e-2, atol=1e-3)


def test_an_exception_in_an_edit_leaves_the_model_clean(tower, pixels, clean):
    def fail(_call, _logits):
        raise ValueError("from the edit")

    with pytest.raises(ValueError, match="from the edit"), editing(tower, 1, fail):
        tower.encode(pixels)
    assert clean(tower)
    with pytest.raises(ValueError, match="from the edit"):
        BlockCache(tower, 1).fill(pixels).outputs(fail)
    assert clean(tower)


def test_a_cache_gives_the_same_outputs(tower, pixels, clean):
    for layer in range(tower.info.layers):
        cache = BlockCache(tower, layer).fill(pixels)
        with torch.no_grad():
            assert torch.equal(cache.outputs().embedding, tower.encode(pixels))
            with editing(tower, layer, halve):
                edited = tower.encode(pixels)
            torch.testing.assert_close(cache.outputs(halve).embedding, edited)
            assert not torch.allclose(edited, tower.encode(pixels), atol=1e-3)
    assert clean(tower)


def test_a_cache_runs_no_earlier_attention(tower, pixels):
    cache = BlockCache(tower, 2).fill(pixels)
    ran = []
    hooks = [
        parts.attention.register_forward_pre_hook(lambda _m, _a, i=i: ran.append(i))
        for i, parts in enumerate(tower.blocks)
    ]
    cache.outputs(halve)
    for hook in hooks:
        hook.remove()
    assert ran == list(range(2, tower.info.layers))


def test_a_cache_filled_in_inference_mode_carries_gradients(tower, pixels):
    cache = BlockCache(tower, 1)
    with torch.inference_mode():
        cache.fill(pixels)
    factor = torch.ones((), requires_grad=True)
    cache.outputs(lambda _call, logits: logits * factor).embedding.square().sum().backward()
    assert factor.grad is not None
    assert factor.grad != 0


def test_a_cache_works_where_the_block_is_the_attention(make, pixels):
    from timm.models.vision_transformer import ParallelScalingBlock

    tower = make["timm"](block_fn=ParallelScalingBlock)
    with torch.no_grad(), editing(tower, 1, halve):
        expected = tower.encode(pixels)
    got = BlockCache(tower, 1).fill(pixels).outputs(halve).embedding
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, tower.encode(pixels), atol=1e-3)


def test_an_unfilled_cache_says_so(native):
    with pytest.raises(XaikitError, match="before fill"):
        BlockCache(native, 1).outputs()


def test_layers_out_of_range_are_named(native, pixels):
    with pytest.raises(UsageError, match="layer 4 is out of range"), editing(native, 4, halve):
        native.encode(pixels)
    with pytest.raises(UsageError, match="layer 4 is out of range"):
        BlockCache(native, 4)
    cache = BlockCache(native, 2).fill(pixels)
    cache.outputs({2: halve, 3: halve})
    # An edit of a layer that does not run again would change nothing, without a word.
    for low in (0, 1):
        with pytest.raises(XaikitError, match=f"runs again from layer 2 on, not {low}"):
            cache.outputs({2: halve, low: halve})
