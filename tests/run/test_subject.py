"""What decides the objective of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.subject import Subject
from xaikit.towers import Tower, load_tower


@pytest.fixture(scope="module")
def headed() -> Tower:
    return load_tower("timm/vit_tiny_patch16_224", "random")


def aim(tower: Tower, **given: str) -> dict[str, object]:
    return Subject(tower=tower, source=SceneSource(4), options=Options(**given)).aim


def test_of_a_file_of_classes_the_ones_that_are_meant_count(headed: Tower, tmp_path: Path) -> None:
    def named(*first: str) -> dict[str, object]:
        file = tmp_path / "names.txt"
        file.write_text("\n".join([*first, *(f"thing {n}" for n in range(len(first), 1000))]))
        return aim(headed, toward="cat", labels=str(file))

    assert aim(headed) == {}
    assert named("cat", "dog") == named("cat", "bird")
    assert named("cat", "dog") != named("dog", "cat")
    assert aim(headed, toward="goldfish")["classes"] == [1]


def test_the_margin_is_of_all_classes(headed: Tower, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    found = []
    for text in ("a cat", "a dog"):
        file.write_text(text)
        found.append(aim(headed, objective="margin", labels=str(file)))
    assert found[0] != found[1]
