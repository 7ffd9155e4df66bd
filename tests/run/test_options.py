"""Options of a run: what a recipe decides, and which stage is told what."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from xaikit.errors import UsageError
from xaikit.run.options import RECIPES, Options, gibibytes

OTHERS = {
    "batch_size": 7,
    "workers": 3,
    "num_clusters": 5,
    "sample_tokens": 99,
    "method": "kmeans",
    "prefix": "mixed",
    "seed": 11,
    "holdout": 0.25,
    "destination": "token",
    "num_permutations": 13,
    "null": "moments",
    "null_block": 6,
    "top_k": 17,
    "rank": "energy",
    "max_qvalue": 0.125,
    "max_clusters": 4,
    "top_n": 3,
    "objective": "margin",
    "toward": "a dog",
    "against": "a cat",
}


@pytest.mark.parametrize("stage", ["cluster", "fit", "circuit", "causal", "target_causal", "live"])
def test_a_stage_is_told_every_option_of_its_own(stage: str) -> None:
    options = Options(**OTHERS)
    told = getattr(options, stage)()
    known = {each.name for each in fields(Options)}
    shared = [each.name for each in fields(told) if each.name in known]
    assert "seed" in shared or stage == "circuit"
    for name in shared:
        assert getattr(told, name) == getattr(options, name) != getattr(Options(), name), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_given_by_hand_wins_over_the_recipe(recipe: str) -> None:
    decided: dict[str, Any] = vars(RECIPES[recipe])
    settled = Options(recipe=recipe).settled()
    assert {name: getattr(settled, name) for name in decided} == decided
    given = {"method": "kmeans", "prefix": "mixed", "rank": "zscore", "destination": "token"}
    # Nothing held out is a share like any other.
    for name, value in {**given, "holdout": 0.0}.items():
        found = Options(recipe=recipe, **{name: value}).settled()
        assert {each: getattr(found, each) for each in decided} == {**decided, name: value}


def test_memory_is_a_number_of_gibibytes_above_nothing() -> None:
    assert gibibytes("0.5") == 1 << 29
    assert gibibytes("1e3") == 1000 << 30
    for text in ("0", "-1", "1e9", "inf", "nan", "much", ""):
        with pytest.raises(ValueError, match="a number of GiB above 0"):
            gibibytes(text)


@pytest.mark.parametrize("given", [{"against": "a cat"}, {"toward": "a", "objective": "margin"}])
def test_a_direction_that_is_none_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Options(**given).check()
    Options(toward="a dog", against="a cat").check()
