"""What a run says of itself: its layers, its options, and how to make it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

from xaikit.artifacts.file_names import RUN
from xaikit.artifacts.run_record import read_run, run_folders
from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.record import write_run
from xaikit.run.subject import Subject

OPTIONS = Options(num_clusters=5, seed=3).settled()


def recorded(root: Path, options: Options = OPTIONS, **more: Any) -> dict[str, Any]:
    """What is read back of a run."""
    tower: Any = Some(info=Some(model="small"))
    subject = Subject(tower=tower, source=SceneSource(4, 0), options=options)
    write_run(root, subject, **{"pairs": [(1, 2), (4, 5)], **more})
    return read_run(root)


def test_the_layers_of_a_run_are_in_folders_of_their_own_or_in_its_own(tmp_path: Path) -> None:
    found = recorded(tmp_path)
    assert found["pairs"] == [[1, 2], [4, 5]]
    assert run_folders(tmp_path) == [tmp_path / "layer_1", tmp_path / "layer_4"]
    assert recorded(tmp_path, pairs=[(3, 4)])["folders"] == ["."]
    assert run_folders(tmp_path) == []


def test_a_run_is_of_a_model_images_and_options_that_can_change_it(tmp_path: Path) -> None:
    found = recorded(tmp_path)
    assert (found["model"], found["images"]["count"]) == ("small", 4)
    assert (found["options"]["num_clusters"], found["options"]["seed"]) == (5, 3)
    same = replace(OPTIONS, workers=2, batch_size=7, memory=1 << 30, strict=True)
    before = (tmp_path / RUN).read_bytes()
    assert recorded(tmp_path, same) == found
    assert (tmp_path / RUN).read_bytes() == before


def test_how_to_make_it_again_is_said_where_it_is_known(tmp_path: Path) -> None:
    assert "command" not in recorded(tmp_path)
    assert recorded(tmp_path, command="xaikit run-all")["command"] == "xaikit run-all"
