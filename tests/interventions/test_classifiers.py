"""Classifiers of prompts, of a head, and of the demo."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource, labels, prompts
from xaikit.interventions.classifiers import classifier_for, folder_targets, read_labels
from xaikit.interventions.metrics import Classifier
from xaikit.towers import Outputs, load_tower


class Folders:
    ids = ("cat/1.png", "dog/2.png", "dog/3.png")
    groups = ("cat", "dog", "dog")


def test_prompts_are_lines_or_belong_to_folders(tmp_path: Path) -> None:
    # Some editors begin a file with a mark of its encoding.
    (tmp_path / "p.txt").write_text("a cat\n\n a dog \n", encoding="utf-8-sig")
    assert read_labels(tmp_path / "p.txt") == (["a cat", "a dog"], None)
    (tmp_path / "p.json").write_text('{"dog": "a dog", "cat": "a cat"}', encoding="utf-8-sig")
    names, folders = read_labels(tmp_path / "p.json")
    assert (names, folders) == (["a dog", "a cat"], ["dog", "cat"])
    found = folder_targets(Folders(), ["dog", "cat"], Folders.ids)  # type: ignore[arg-type]
    assert found.tolist() == [1, 0, 0]
    # One file serves a folder and what it lies in.
    inside = type("Inside", (Folders,), {"groups": ("val/cat", "val/dog", "val/dog")})
    assert folder_targets(inside(), ["dog", "cat"], Folders.ids).tolist() == [1, 0, 0]  # type: ignore[arg-type,union-attr]
    with pytest.raises(UsageError, match="no prompt for the folder dog"):
        folder_targets(Folders(), ["cat"], Folders.ids)  # type: ignore[arg-type]
    # Targets are of the images that were traced, in their order.
    traced = ["dog/3.png", "cat/1.png"]
    assert folder_targets(Folders(), ["cat", "dog"], traced).tolist() == [1, 0]  # type: ignore[arg-type,union-attr]


@pytest.mark.parametrize("folders", [["dog"], ["dog", "cat", "cow"]])
def test_a_head_takes_as_many_classes_as_it_has_and_their_images_classes(
    tmp_path: Path, folders: list[str]
) -> None:
    tower: Any = SimpleNamespace(info=SimpleNamespace(classes=2), text=None)
    (tmp_path / "two.json").write_text('{"dog": "a dog", "cat": "a cat"}')
    given = (tower, Folders())
    found = classifier_for(*given, tmp_path / "two.json", Folders.ids)  # type: ignore[arg-type]
    assert found is not None
    assert (found.name, list(found.names)) == ("classifier head", ["a dog", "a cat"])
    assert found.targets.tolist() == [1, 0, 0]  # type: ignore[union-attr]
    (tmp_path / "other.json").write_text(json.dumps({name: name for name in folders}))
    source: Any = type("One", (Folders,), {"groups": ("dog",) * 3})()
    with pytest.raises(UsageError, match=f"{len(folders)} classes, the head has 2"):
        classifier_for(tower, source, tmp_path / "other.json", Folders.ids)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("p.txt", " \n", "expected one prompt a line"),
        ("p.json", "{", "not valid JSON"),
        ("p.json", '["a"]', "expected an object"),
        ("p.json", '{"a": 1}', "expected an object"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(
    tmp_path: Path, name: str, text: str, match: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=match):
        read_labels(tmp_path / name)


def test_the_demo_brings_its_prompts_and_the_class_of_every_scene() -> None:
    tower, source = load_tower("xaikit-demo", with_text=True), SceneSource(6)
    found = classifier_for(tower, source, None, source.ids)
    assert found is not None
    assert list(found.names) == prompts()
    assert found.targets.tolist() == labels(source.factors()).tolist()
    some = [source.ids[4], source.ids[1]]
    traced = classifier_for(tower, source, None, some)
    assert traced.targets.tolist() == labels(source.factors())[[4, 1]].tolist()
    assert classifier_for(load_tower("xaikit-demo"), source, None, source.ids) is None


def test_without_targets_the_clean_models_class_counts_as_right() -> None:
    clean = Outputs(embedding=torch.zeros(2, 3), class_logits=torch.tensor([[0, 2.0], [3, 1]]))
    own = Classifier(name="head", logits=lambda out: out.class_logits)
    assert own.right(clean, [5, 6]).tolist() == [1, 0]
    known = Classifier(
        name="head", logits=lambda out: out.class_logits, targets=torch.tensor([7, 8, 9])
    )
    assert known.right(clean, [2, 0]).tolist() == [9, 7]
