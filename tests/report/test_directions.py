"""An objective in words, and which way an edit moves it."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.report.directions import direction, full_words, moved


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"kind": "toward", "toward": "a cat\x1b[31m"}, "“a cat\\x1b[31m”"),
        ({"kind": "toward", "toward": "a cat", "against": "a dog"}, "“a cat” against “a dog”"),
        ({"kind": "margin"}, "the margin"),
        ({}, "the objective"),
    ],
)
def test_an_objective_is_named_in_text_that_is_safe_to_show(
    objective: dict[str, str], words: str
) -> None:
    found: Any = Some(objective=objective)
    assert direction(found) == words


def test_a_fall_is_lowered_and_what_is_below_none_is_raised() -> None:
    assert moved(0.04, "it") == "lowers it by 0.04"
    assert moved(-0.04, "it") == "raises it by 0.04"
    assert moved(-0.04, "it", several=True) == "raise it by 0.04"


def test_what_ablating_everything_does_is_a_distance_or_a_fall_or_a_rise() -> None:
    assert full_words("cosine", 0.5) == "1 − cos = 0.5"
    assert full_words("margin", 0.5) == "the margin falls by 0.5"
    assert full_words("toward", -0.5) == "the objective rises by 0.5"
