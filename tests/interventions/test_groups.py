"""Which image is in which group, as a file or the folders say."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaikit.errors import UsageError
from xaikit.interventions.groups import image_groups

IDS, FOLDERS = ["a/1", "a/2", "b/1", "c/1"], ["a", "a", "b", "c"]


@pytest.fixture
def groups(tmp_path: Path):
    """Groups of the images, by what a file holds."""

    def read(content: str | bytes, name: str = "groups.csv", folders: list[str] | None = FOLDERS):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return image_groups(str(path), IDS, folders)

    return read


def test_groups_come_in_the_order_of_their_names_and_hold_rows_in_order(groups) -> None:
    found = groups("c/1,z\na/2,b\na/1,b\nb/1,a\n")
    assert list(found.items()) == [("a", [2]), ("b", [0, 1]), ("z", [3])]
    assert list(image_groups("folder", IDS, ["z", "b", "b", "a"])) == ["a", "b", "z"]


def test_an_image_s_own_line_wins_over_its_folder_s_and_what_is_not_named_is_in_no_group(
    groups,
) -> None:
    for content in ("a,one\na/2,two\n", "a/2,two\na,one\n"):
        assert groups(content) == {"one": [0], "two": [1]}


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_spaces_and_the_mark_of_a_spreadsheet_are_no_part_of_a_name(groups, start: bytes) -> None:
    assert groups(start + b"a/1 , one\nb/1,one\n c/1, two \n") == {"one": [0, 2], "two": [3]}
    assert groups(start + b"image,group\na/1,one\nc/1,two\n") == {"one": [0], "two": [3]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a/1,one\na/2,one\n", "1 group of images; expected two or more"),
        ("a/1,one\na/1,two\n", "line 2: a/1 is in the group one already"),
        ("a/1,one\nd,two\n", "line 2: d is no image and no folder of the run"),
        ("a/1,one\na/2\n", "line 2: expected an image or a folder, and its group"),
        ("a/1,one\na/2, \n", "line 2: expected an image or a folder, and its group"),
        (b"a/1,\xff\n", "not a text file"),
    ],
)
def test_what_makes_no_groups_is_refused_by_line(groups, content, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        groups(content)


def test_the_same_line_twice_says_nothing_new(groups) -> None:
    assert groups("a/1,one\na/1,one\nb/1,two\n") == {"one": [0], "two": [2]}


def test_folders_that_are_one_are_no_groups() -> None:
    with pytest.raises(UsageError, match="`group=folder`: 1 group of images"):
        image_groups("folder", IDS, ["a"] * 4)
