"""The self-check passes honest towers and fails those whose logits are read wrongly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xaikit.errors import XaikitError
from xaikit.towers import build_for_check, noise, self_check, wrap_tower
from xaikit.towers.selfcheck import require_check


def test_honest_towers_pass(tower, pixels, clean):
    result = self_check(tower, pixels=pixels)
    assert result.passed
    assert result.bit_identical
    assert sorted(result.errors) == list(range(tower.info.layers))
    # Exactly zero everywhere would mean that nothing was recomputed.
    assert 0 < max(result.errors.values()) < 1e-5
    assert clean(tower)


def test_some_layers_can_be_chosen(tower):
    assert list(self_check(tower, layers=[1]).errors) == [1]


class Biased(nn.MultiheadAttention):
    """Adds to its keys what a look at its weights does not show."""

    def forward(self, query, key, value, **options):
        shifted = key + torch.linspace(0, 1, key.shape[1])[None, :, None]
        return super().forward(query, shifted, value, **options)


def test_a_module_that_computes_other_logits_is_refused(native):
    block = native.module.transformer.resblocks[2]
    odd = Biased(32, 2, batch_first=True)
    odd.load_state_dict(block.attn.state_dict())
    block.attn = odd
    tower = wrap_tower(native.module, model="odd-one")
    result = self_check(tower)
    assert not result.passed
    assert result.errors[2] > 1e-2
    assert result.errors[1] < 1e-4
    with pytest.raises(XaikitError, match=r"^odd-one: self-check failed: .*layer 2"):
        require_check(tower)


def test_not_a_number_is_no_pass(native):
    native.module.transformer.resblocks[1].attn.in_proj_bias.data.fill_(torch.nan)
    assert not self_check(native).passed


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_passes_within_its_tolerance(make, precision):
    from xaikit.towers.loading import _place

    tower = make["eva"]()
    _place(tower, torch.device("cpu"), precision)
    assert self_check(tower).passed


def test_reduced_models_keep_their_width_and_tokens():
    tower = build_for_check("ViT-S-32-alt", layers=2)
    assert (tower.info.layers, tower.info.tokens) == (2, 50)
    assert (tower.info.width, tower.info.heads) == (384, 6)


def test_a_tower_is_checked_before_its_first_trace_and_the_outcome_is_kept(monkeypatch):
    import xaikit
    from xaikit.towers import selfcheck

    tower = xaikit.load_tower("xaikit-demo")
    source = xaikit.open_images(demo=True, max_images=2)
    found = xaikit.trace(tower, source).info.tower
    assert found["self_check"]["passed"]
    assert found["self_check"]["layers"] == tower.info.layers
    assert found["self_check"]["attention_error"] < found["self_check"]["tolerance"]
    assert found["loaded"]["settings"]["mean"]["from"]
    monkeypatch.setattr(selfcheck, "self_check", lambda *_a, **_k: pytest.fail("checked again"))
    xaikit.trace(tower, source)


def test_a_tower_that_fails_is_refused_before_anything_is_recorded(monkeypatch, tmp_path):
    import xaikit
    from xaikit.towers import selfcheck

    tower = xaikit.load_tower("xaikit-demo")
    monkeypatch.setitem(selfcheck.TOLERANCE, "float32", -1.0)
    with pytest.raises(XaikitError, match=r"xaikit-demo: self-check failed: .*does not read"):
        xaikit.trace(tower, xaikit.open_images(demo=True, max_images=2), out=tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_the_check_costs_less_than_two_passes_of_two_images(make):
    tower = make["timm"](depth=12, embed_dim=192, num_heads=3, img_size=96, patch_size=8)

    def operations(run):
        with FlopCounterMode(display=False) as counted, torch.inference_mode():
            run()
        return counted.get_total_flops()

    plain = operations(lambda: tower.encode(noise(tower, 2)))
    assert 0 < operations(lambda: self_check(tower)) < 2 * plain
