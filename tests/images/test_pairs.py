"""Pairs of images that differ in one thing, and in nothing else."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.pairs import (
    demo_pairs,
    read_words,
    save_pairs,
    typographic_pairs,
    with_word,
)
from xaikit.images.scenes import FACTORS, SceneSource, draw_batch


@pytest.mark.parametrize("factor", FACTORS)
def test_scenes_of_a_pair_differ_in_one_factor(factor: str) -> None:
    (own, before), (other, after) = (draw_batch(3, range(6), change) for change in (None, factor))
    changed = {"place": "quadrant"}.get(factor, factor)
    for each in fields(before):
        if each.name.startswith("patch"):
            continue
        same = getattr(before, each.name) == getattr(after, each.name)
        if each.name != changed:
            assert same.all(), each.name
        elif factor == "texture":
            assert not same.any()
        else:
            assert not same[:, 0].any()
            assert same[:, 1].all()
    assert (own != other).any(axis=(1, 2, 3)).all()
    if factor != "texture":
        # The bottom half is the same picture.
        assert np.array_equal(own[:, 32:], other[:, 32:])


def test_without_a_change_scenes_are_those_of_the_demo() -> None:
    scene = np.asarray(SceneSource(1, seed=3).load(0))
    assert np.array_equal(draw_batch(3, [0])[0][0], scene)


def test_saved_pairs_are_each_others_partners(tmp_path: Path) -> None:
    partners = save_pairs(demo_pairs(3, "colour"), tmp_path / "out", "colour")
    assert len(partners) == 6
    assert all(partners[partner] == image for image, partner in partners.items())
    for name in partners:
        assert Image.open(tmp_path / "out" / "images" / name).size == (64, 64)
    with pytest.raises(UsageError, match="exists and is not empty"):
        save_pairs(demo_pairs(1, "colour"), tmp_path / "out", "colour")


@pytest.mark.parametrize("size", [(64, 64), (300, 40), (40, 300)])
def test_a_word_is_written_on_the_image_and_within_it(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 120, 10))
    found = np.asarray(with_word(image, "elephant"))
    changed = (found != np.asarray(image)).any(axis=2)
    assert 0.01 < changed.mean() < 0.6
    assert not changed[[0, -1]].any()
    assert not changed[:, [0, -1]].any()
    dark = found[changed].max(axis=1)
    assert dark.min() < 40
    assert dark.max() == 255


def test_words_are_written_in_turn(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("cat\n\n dog \n")
    words = read_words(tmp_path / "words")
    assert words == ["cat", "dog"]
    found = list(typographic_pairs(SceneSource(3), words, 3))
    for (_, image, written), word in zip(found, ("cat", "dog", "cat"), strict=True):
        assert np.array_equal(np.asarray(written), np.asarray(with_word(image, word)))
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(UsageError, match="expected one word a line"):
        read_words(tmp_path / "empty")
    with pytest.raises(UsageError, match="No such file"):
        read_words(tmp_path / "none")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="`factor=size`: expected one of colour"):
        next(demo_pairs(1, "size"))
    with pytest.raises(UsageError, match="`count=0`"):
        next(demo_pairs(0, "colour"))
