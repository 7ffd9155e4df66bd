"""What the outputs of a classifier head are called."""

from __future__ import annotations

from xaikit.towers.class_names import class_names


def test_classes_of_a_head_have_names() -> None:
    assert class_names(3) == ["class 0", "class 1", "class 2"]
    assert class_names(1000)[1] == "goldfish"
