"""Captions as numbers: what they leave out, get wrong, and are true of."""

from __future__ import annotations

import numpy as np
import pytest

from xaikit.images import captions, scenes


@pytest.fixture
def factors() -> scenes.Factors:
    return scenes.factors_of(9, range(200))


def test_a_full_caption_in_words_is_the_caption_of_the_scene(factors: scenes.Factors) -> None:
    said = captions.says(factors)
    assert [captions.words(row) for row in said] == scenes.captions(factors)


def test_what_is_left_out_is_not_in_the_words() -> None:
    said = np.array([captions.ANY, 0, 1, captions.ANY, captions.ANY, captions.ANY, captions.ANY])
    assert captions.words(said) == "top red square"


def test_a_partial_caption_is_true_and_names_one_object(factors: scenes.Factors) -> None:
    said = captions.says(factors)
    partial = captions.partial(said, np.random.default_rng(0))
    assert captions.true_of(partial, said).diagonal().all()
    assert ((partial[:, [2, 5]] != captions.ANY).sum(1) == 1).all()
    assert (partial[:, 6] == captions.ANY).all()


def test_a_wrong_caption_differs_in_one_factor_that_exists(factors: scenes.Factors) -> None:
    said = captions.says(factors)
    wrong = captions.wrong(said, np.random.default_rng(0))
    assert ((wrong != said).sum(1) == 1).all()
    assert not captions.true_of(wrong, said).diagonal().any()
    assert ((wrong >= 0) & (wrong < np.array(captions.COUNTS))).all()
    assert (wrong != said).any(0).all()


def test_prompts_are_true_of_the_scenes_of_their_label(factors: scenes.Factors) -> None:
    said = captions.says(factors)
    colours = len(scenes.COLOURS)
    prompts = np.full((30, 7), captions.ANY)
    prompts[:, 1], prompts[:, 2] = np.arange(30) % colours, np.arange(30) // colours
    assert [captions.words(row) for row in prompts] == scenes.prompts()
    true = captions.true_of(prompts, said)
    assert (true.sum(1) == 1).all()
    assert (true.argmax(1) == scenes.labels(factors)).all()
