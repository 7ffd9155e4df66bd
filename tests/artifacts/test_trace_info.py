"""What a trace says of its images: used ones, and those that could not be used, in their places."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Some
from typing import Any

import pytest
from conftest import ORIGIN

from xaikit.artifacts.records import Provenance
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.errors import UsageError

IDS = ["a", "b", "c", "d", "e"]
GROUPS = ["one", "two", "one", "two", "three"]
BLANK = TraceInfo(
    provenance=Provenance(
        origin=replace(ORIGIN, images_fingerprint=""),
        layer=2,
        next_layer=3,
        options={"precision": "float32", "store_dtype": "float32"},
    ),
    images=[],
    groups=None,
    tokens=5,
    heads=2,
    prefix_kinds=["class token"],
    width=4,
    ffn_width=8,
    grid=[2, 2],
    preprocess={"size": [8, 8]},
)


def known(groups: list[str] | None = GROUPS) -> TraceInfo:
    """Of five candidates of which two could not be used."""
    names: Any = Some(ids=IDS, groups=groups)
    return BLANK.with_skipped([0, 2, 3], [(4, "empty"), (1, "cut short")], names, "content")


def test_an_image_that_cannot_be_used_keeps_its_place_name_and_group() -> None:
    found = known()
    assert (found.images, found.groups) == (["a", "c", "d"], ["one", "one", "two"])
    assert found.skipped == [["b", "cut short"], ["e", "empty"]]
    assert (found.skipped_at, found.skipped_groups) == ([1, 4], ["two", "three"])
    assert found.provenance.origin.images_fingerprint == "content"
    assert found.candidate_positions().tolist() == [0, 2, 3]
    assert found.candidate_ids() == (IDS, GROUPS)
    assert known(None).candidate_ids() == (IDS, None)
    assert known(None).skipped_groups is None


@pytest.mark.parametrize(
    "changed",
    [
        {"preprocess": {"size": [8, 9]}},
        {"provenance": replace(known().provenance, layer=1)},
        {"provenance": replace(known().provenance, next_layer=4)},
        {"provenance": replace(known().provenance, options={"precision": "float16"})},
        {"provenance": replace(known().provenance, origin=ORIGIN)},
    ],
    ids=["preprocessing", "layer", "next layer", "precision", "images"],
)
def test_all_that_shapes_the_numbers_is_in_the_identity(changed: dict[str, Any]) -> None:
    assert replace(known(), **changed).identity != known().identity


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"groups": ["one"]}, "groups"),
        ({"skipped_at": [4, 1]}, "skipped_at"),
        ({"skipped_at": [1, 5]}, "skipped_at"),
        ({"skipped_groups": ["two"]}, "skipped_groups"),
        ({"skipped": [["b", "cut", "short"], ["e", "empty"]]}, "skipped"),
    ],
    ids=["groups", "order", "beyond", "groups of skipped", "no pair"],
)
def test_lists_that_do_not_go_together_are_refused(changed: dict[str, Any], said: str) -> None:
    known().require_counts("here")
    with pytest.raises(UsageError, match=f"^here: {said} does not go with its 3 images, 2 more"):
        replace(known(), **changed).require_counts("here")
