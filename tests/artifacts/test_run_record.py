"""What a folder says of its last run: its own layers, lowest first, and nothing elsewhere."""

from __future__ import annotations

import pytest

from xaikit.artifacts.file_names import RUN
from xaikit.artifacts.files import FORMAT_VERSION, write_json
from xaikit.artifacts.run_record import read_run, run_folders
from xaikit.errors import UsageError

FIELDS = {"stage": "run", "format_version": FORMAT_VERSION, "pairs": [[1, 2]], "options": {}}


def recorded(root, *folders):
    write_json(root / RUN, {**FIELDS, "folders": list(folders)})
    return root


def test_the_layers_of_the_last_run_are_its_own_and_in_its_order(tmp_path):
    for layer in (2, 10, 9):
        (tmp_path / f"layer_{layer}").mkdir()
    (tmp_path / "layer_of_another_kind").mkdir()
    # Where no run is recorded all there are count, by number.
    found = [folder.name for folder in run_folders(tmp_path)]
    assert found == ["layer_2", "layer_9", "layer_10"]
    recorded(tmp_path, "layer_9", "layer_10")
    assert run_folders(tmp_path) == [tmp_path / "layer_9", tmp_path / "layer_10"]


def test_a_run_of_one_layer_is_in_the_folder_itself(tmp_path):
    assert read_run(recorded(tmp_path, "."))["folders"] == ["."]
    assert run_folders(tmp_path) == []


# The name of ``..`` is its own, and still another folder's.
@pytest.mark.parametrize("name", ["../other", "/etc", "a/b", "..", ""])
def test_a_run_names_no_folder_elsewhere(tmp_path, name):
    with pytest.raises(UsageError, match="names folders elsewhere"):
        run_folders(recorded(tmp_path, "layer_1", name))


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path):
    with pytest.raises(UsageError, match="holds no run: make one with `xaikit run-all --out-dir"):
        read_run(tmp_path)
