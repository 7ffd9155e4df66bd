"""The demo scenes: deterministic, varied, and labelled with what they really show."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaikit.errors import UsageError
from xaikit.images import scenes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63), st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_a_scene_depends_on_seed_and_index_alone(seed: int, indices: list[int]) -> None:
    pixels, factors = scenes.draw_batch(seed, indices)
    said = scenes.captions(factors)
    for place, index in enumerate(indices):
        scene = scenes.draw(seed, index)
        assert np.array_equal(scene.pixels, pixels[place])
        assert scene.caption == said[place]
        assert np.array_equal(scene.factors.patch_object[0], factors.patch_object[place])
    assert pixels.shape == (len(indices), 64, 64, 3)
    assert pixels.dtype == np.uint8


def test_neither_version_nor_machine_changes_a_scene() -> None:
    scene = scenes.draw(0, 0)
    assert scene.caption == "top left yellow square and bottom right green ring on speckled ground"
    sums = scene.pixels[::21, ::21].astype(int).sum(-1)
    known = [(241, 262, 263, 258), (254, 502, 258, 240), (245, 259, 273, 270), (240, 239, 240, 241)]
    assert np.abs(sums - np.array(known)).max() <= 3


def test_scenes_of_two_indices_or_two_seeds_differ() -> None:
    assert not np.array_equal(scenes.draw(0, 0).pixels, scenes.draw(0, 1).pixels)
    assert not np.array_equal(scenes.draw(0, 0).pixels, scenes.draw(1, 0).pixels)


def test_every_factor_is_drawn_evenly_and_on_its_own() -> None:
    factors = scenes.factors_of(5, range(2000))
    for values, count in (
        (factors.quadrant[:, 0], 2),
        (factors.quadrant[:, 1] - 2, 2),
        (factors.shape[:, 0], len(scenes.SHAPES)),
        (factors.colour[:, 1], len(scenes.COLOURS)),
        (factors.texture, len(scenes.TEXTURES)),
    ):
        share = np.bincount(values, minlength=count) / len(values)
        assert np.abs(share - 1 / count).max() < 0.05
    assert abs(np.corrcoef(factors.shape[:, 0], factors.colour[:, 0])[0, 1]) < 0.08
    assert abs(np.corrcoef(factors.shape[:, 0], factors.shape[:, 1])[0, 1]) < 0.08


def test_objects_lie_within_the_quadrants_they_are_said_to_be_in() -> None:
    factors = scenes.factors_of(2, range(300))
    covered = factors.patch_object != scenes.BACKGROUND
    for row, quadrants in zip(range(300), factors.quadrant, strict=True):
        found = np.unique(factors.patch_quadrant[row][covered[row]])
        assert found.tolist() == quadrants.tolist()


def test_patches_of_an_object_have_its_colour() -> None:
    pixels, factors = scenes.draw_batch(3, range(300))
    patches = pixels.reshape(300, 8, 8, 8, 8, 3).mean((2, 4)).reshape(300, 64, 3)
    full = factors.patch_coverage > 0.9
    strongest = {"red": 0, "green": 1, "blue": 2}
    for name, channel in strongest.items():
        chosen = full & (factors.patch_colour == scenes.COLOURS.index(name))
        assert chosen.sum() > 50
        assert (patches[chosen].argmax(-1) == channel).all()


def test_patches_without_an_object_are_ground() -> None:
    _, factors = scenes.draw_batch(3, range(50))
    empty = factors.patch_coverage < scenes.OBJECT_COVERAGE
    assert (factors.patch_shape[empty] == scenes.BACKGROUND).all()
    assert (factors.patch_object[empty] == scenes.BACKGROUND).all()
    assert (factors.patch_object[~empty] >= 0).all()
    assert 0.5 < empty.mean() < 0.95
    assert (factors.patch_texture == factors.texture[:, None]).all()


def test_shapes_cover_as_they_should() -> None:
    factors = scenes.factors_of(4, range(1500))
    area = {
        name: factors.patch_coverage[:, :32].sum(1)[factors.shape[:, 0] == number].mean()
        for number, name in enumerate(scenes.SHAPES)
    }
    assert area["circle"] == pytest.approx(np.pi * 86.6 / 64, rel=0.05)
    assert area["square"] == pytest.approx((1.64**2) * 86.6 / 64, rel=0.05)
    assert area["ring"] == pytest.approx(np.pi * (1 - 0.52**2) * 86.6 / 64, rel=0.05)


def test_the_label_is_the_one_prompt_that_is_true() -> None:
    said = scenes.prompts()
    assert len(set(said)) == len(said) == 30
    for index in range(40):
        scene = scenes.draw(7, index)
        true = said[scenes.label(scene)]
        _, colour, shape = true.split()
        top = scene.caption.split(" and ")[0]
        assert top.startswith("top ")
        assert top.endswith(f"{colour} {shape}")


def test_the_source_lists_and_loads_its_scenes() -> None:
    source = scenes.SceneSource(12, seed=3)
    assert len(source) == 12
    assert source.ids[11] == "demo/3/000011"
    assert source.groups is None
    picture = source.load(11)
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert np.array_equal(np.asarray(picture), scenes.draw(3, 11).pixels)
    assert source.describe() == {"kind": "demo", "seed": 3, "count": 12}
    assert len(source.factors()) == 12
    with pytest.raises(IndexError, match="scene 12 of 12"):
        source.load(12)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 scene, got 0"):
        scenes.SceneSource(0)


def test_drawing_needs_no_torch() -> None:
    code = "import sys, xaikit.images.scenes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
