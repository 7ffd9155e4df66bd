"""Rasters of positions: whose they are, and which of them may be interpolated."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xaikit.towers.hf_names import Renamed
from xaikit.towers.rasters import as_transformers_does, grids_of, resized


def test_the_raster_of_a_whole_clip_is_its_images():
    state = {
        "positional_embedding": torch.zeros(77, 16),
        "token_embedding.weight": torch.zeros(9, 16),
        "visual.positional_embedding": torch.zeros(17, 32),
        "visual.conv1.weight": torch.zeros(32, 3, 4, 4),
    }
    for order in (state, dict(reversed(state.items()))):
        assert grids_of(order) == {"position embeddings": 4, "patch embeddings": 4}
    timm = {"trunk.pos_embed": torch.zeros(1, 50, 8), "patch_embed.proj.weight": torch.zeros(8, 49)}
    assert grids_of(timm) == {"position embeddings": 7}


@pytest.mark.parametrize(
    ("shape", "taken"), [((10, 32), True), ((26, 32), True), ((12, 32), False), ((1, 32), False)]
)
def test_positions_of_a_square_raster_alone_are_interpolated(native, shape, taken):
    given = torch.randn(shape)
    notes: list[str] = []
    state = {"positional_embedding": given}
    found = resized(native.module, state, grids_of(state), "timm", notes)["positional_embedding"]
    assert (found.shape == (17, 32)) is taken
    assert torch.equal(state["positional_embedding"], given)
    if taken:
        side = round((shape[0] - 1) ** 0.5)
        assert torch.equal(found[0], given[0])
        (note,) = notes
        assert note == (
            f"position embeddings of {side} × {side} interpolated to 4 × 4, as open_clip does"
        )
    else:
        assert torch.equal(found, given)


def test_positions_that_fit_stay_and_nothing_is_said(native):
    own = native.module.positional_embedding.detach().clone()
    notes: list[str] = []
    state = {"positional_embedding": own}
    found = resized(native.module, state, grids_of(state), "timm", notes)
    assert torch.equal(found["positional_embedding"], own)
    assert notes == []


@pytest.mark.parametrize("prefix", [0, 1])
def test_dinov2_s_positions_are_interpolated_behind_the_class_token(make, prefix):
    module = make["timm"](class_token=bool(prefix), global_pool="avg").module
    theirs = torch.randn(1, 49 + prefix, 32)
    renamed = Renamed(kind="Dinov2Model", state={"pos_embed": theirs}, prefix="")
    found = as_transformers_does(module, renamed)["pos_embed"]
    raster = theirs[:, prefix:].reshape(1, 7, 7, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(raster, size=(4, 4), mode="bicubic", align_corners=False)
    assert torch.equal(found[:, :prefix], theirs[:, :prefix])
    assert torch.equal(found[:, prefix:], expected.permute(0, 2, 3, 1).reshape(1, 16, 32))
    # Other kinds, and positions that fit, are left as they are.
    assert (
        as_transformers_does(module, Renamed(kind="ViTModel", state=renamed.state, prefix="")) == {}
    )
    same = {"pos_embed": torch.zeros(1, 16 + prefix, 32)}
    assert as_transformers_does(module, Renamed(kind="Dinov2Model", state=same, prefix="")) == {}
