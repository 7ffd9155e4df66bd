"""The self-check passes honest towers and fails those whose logits are read wrongly."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xaikit.errors import XaikitError
from xaikit.towers import build_for_check, noise, self_check, wrap_tower
from xaikit.towers.selfcheck import CheckResult, _decade, _difference, require_check


def test_honest_towers_pass(tower, pixels, clean):
    result = self_check(tower, pixels=pixels)
    assert result.passed
    assert result.bit_identical
    assert sorted(result.errors) == list(range(tower.info.layers))
    # Exactly zero everywhere would mean that nothing was recomputed.
    assert 0 < max(result.errors.values()) < 1e-5
    assert clean(tower)


def test_a_model_whose_last_bits_change_as_it_is_read_is_refused(native, monkeypatch):
    encode, passes = native.encode, []

    def changing(pixels):
        passes.append(pixels)
        found = encode(pixels)
        # The second pass is the one that is read.
        return torch.nextafter(found, found + 1) if len(passes) == 2 else found

    monkeypatch.setattr(native, "encode", changing)
    result = self_check(native)
    assert not result.bit_identical
    assert not result.passed
    assert max(result.errors.values()) <= result.tolerance


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


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        ({}, True),
        ({"bit_identical": False}, False),
        ({"edit_error": 2e-4}, False),
        ({"edit_error": math.nan}, False),
        ({"errors": {0: 0.0, 3: 2e-4}}, False),
        ({"errors": {0: math.nan, 3: 0.0}}, False),
        ({"errors": {0: 1e-4}, "edit_error": 1e-4}, True),
    ],
)
def test_a_check_passes_where_all_of_it_does(changed, passed):
    own = {"errors": {0: 1e-6, 3: 2e-5}, "bit_identical": True, "edit_error": 3e-6, **changed}
    assert CheckResult(model="m", tolerance=1e-4, **own).passed is passed


def test_the_worst_layer_is_named():
    errors = {0: 1e-6, 3: 2e-5, 5: 3e-7}
    found = CheckResult(
        model="m", errors=errors, tolerance=1e-4, bit_identical=False, edit_error=4e-6
    )
    said = found.describe()
    assert said.startswith("m: self-check failed: largest attention error 2.0e-05 of its scale")
    assert "(layer 3, tolerance 1e-04)" in said
    assert "moves the embedding by 4.0e-06" in said
    assert "capturing changes the output" in said


def test_errors_are_recorded_to_the_power_of_ten_above():
    assert [_decade(error) for error in (0.0, 2e-6, 1e-6, 0.3, 1.5)] == [0.0, 1e-5, 1e-6, 1.0, 10.0]


def test_a_difference_is_the_largest_on_either_side_as_a_share_of_the_output_s_own():
    own = torch.tensor([1.0, -4.0])
    assert _difference(own, torch.tensor([1.0, -3.0])) == 0.25
    assert _difference(own, torch.tensor([3.0, -4.0])) == 0.5
    assert _difference(torch.zeros(2), torch.tensor([0.0, 0.5])) == 0.5
    assert math.isnan(_difference(own, torch.tensor([math.nan, 0.0])))


def test_an_edit_that_does_not_give_back_the_model_s_own_output_is_found(native, monkeypatch):
    from xaikit.towers import selfcheck

    real, layers = selfcheck.editing, []

    @contextmanager
    def off(tower, layer, edit):
        layers.append(layer)
        with real(tower, layer, lambda call, logits: edit(call, logits) * 1.5):
            yield

    monkeypatch.setattr(selfcheck, "editing", off)
    result = self_check(native)
    assert layers == [0, 1, 2, 3]
    assert max(result.errors.values()) < 1e-5
    assert result.edit_error > 1e-2
    assert not result.passed
