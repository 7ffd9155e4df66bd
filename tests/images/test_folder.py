from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.folder import _left_out, open_folder


def draw(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), colour).save(path)


def test_ids_are_sorted_paths_and_groups_their_folders(tmp_path):
    for name in ("b/2.png", "b/10.JPG", "a/c/1.png", "0.png"):
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    source = open_folder(tmp_path)
    assert source.ids == ["0.png", "a/c/1.png", "b/10.JPG", "b/2.png"]
    assert source.groups == [".", "a/c", "b", "b"]
    assert len(source) == 4
    assert source.load(1).size == (4, 3)
    facts = source.describe()
    assert facts["kind"] == "folder"
    assert (facts["count"], facts["ignored_files"]) == (4, 2)
    json.dumps(facts)


def test_a_flat_folder_has_no_groups(tmp_path):
    draw(tmp_path / "1.png")
    assert open_folder(str(tmp_path)).groups is None


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    for name in ("1.png", ".2.png", "._1.png", ".cache/3.png"):
        draw(tmp_path / name)
    source = open_folder(tmp_path)
    assert source.ids == ["1.png"]
    assert source.describe()["ignored_files"] == 0


def test_links_are_followed_once_and_loops_end(tmp_path):
    draw(tmp_path / "real" / "1.png")
    (tmp_path / "also").symlink_to("real")
    (tmp_path / "real" / "up").symlink_to("..")
    (tmp_path / "loop.png").symlink_to("loop.png")
    elsewhere = tmp_path.with_name(tmp_path.name + "_elsewhere")
    draw(elsewhere / "2.png")
    (tmp_path / "linked").symlink_to(elsewhere)
    assert open_folder(tmp_path).ids == ["linked/2.png", "loop.png", "real/1.png"]


def test_a_folder_that_is_linked_to_keeps_the_name_of_its_own_place(tmp_path):
    """Whatever the link is called: names do not depend on which links there are."""
    draw(tmp_path / "m" / "real" / "1.png")
    for link in ("a", "z", "m/b"):
        (tmp_path / link).symlink_to(tmp_path / "m" / "real")
    assert open_folder(tmp_path).ids == ["m/real/1.png"]


def test_unreadable_folders_are_counted(tmp_path, monkeypatch):
    draw(tmp_path / "1.png")
    draw(tmp_path / "locked" / "2.png")
    scandir = os.scandir

    def locked(path):
        if str(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    source = open_folder(tmp_path)
    assert source.ids == ["1.png"]
    assert source.describe()["unreadable_folders"] == 1
    assert source.left_out == "beside 1 images, 1 folders cannot be read"
    (tmp_path / "1.png").unlink()
    with pytest.raises(UsageError, match=r"no images in this folder \(1 unreadable folders\)"):
        open_folder(tmp_path)


def test_names_that_are_no_unicode(tmp_path):
    draw(tmp_path / "plain.png")
    try:
        os.rename(tmp_path / "plain.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    source = open_folder(tmp_path)
    assert source.ids == ["\\xff.png"]
    assert source.load(0).size == (4, 3)


def test_a_folder_named_like_an_image(tmp_path):
    draw(tmp_path / "x.jpg" / "1.png")
    assert open_folder(tmp_path).ids == ["x.jpg/1.png"]


def test_nothing_to_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "notes.txt"
    file.write_text("x")
    for folder, words in {
        tmp_path / "missing": "no such folder",
        "": "no such folder",
        file: "this is a file",
        tmp_path: "no images in this folder .1 other files: 1 .txt",
    }.items():
        with pytest.raises(UsageError, match=f"`images=.*{words}") as caught:
            open_folder(folder)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(UsageError, match="or below it"):
        open_folder(tmp_path)


def test_what_is_not_read_is_counted_and_named(tmp_path):
    draw(tmp_path / "1.png")
    assert open_folder(tmp_path).left_out == ""
    for name in ("img_1", "img_2", "a/b.jpg_large", "c.XYZ", "d.xyz", "e.xyz", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    said = "beside 1 images, 6 other files are not read: 3 .xyz, 2 without a suffix, 1 .jpg_large"
    assert open_folder(tmp_path).left_out == said
    for i in range(9):
        (tmp_path / f"f.k{i}").write_bytes(b"x")
    assert open_folder(tmp_path).left_out.endswith("1 .jpg_large, 1 .k0, 8 others")


def test_a_suffix_that_is_no_unicode_is_said_as_text(tmp_path):
    draw(tmp_path / "1.png")
    draw(tmp_path / "2.png")
    try:
        os.rename(tmp_path / "2.png", os.fsencode(tmp_path) + b"/2.\xff")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert open_folder(tmp_path).left_out == r"beside 1 images, 1 other file is not read: 1 .\xff"


def test_what_would_read_a_file_that_is_not_read_is_named():
    said = _left_out(Counter({".heic": 2, ".heif": 1, ".avif": 1, ".txt": 1}), 0, 3)
    assert said.endswith("; the package pillow-avif-plugin or pillow-heif would read some of them")
    assert "the package" not in _left_out(Counter({".txt": 1}), 0, 3)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    draw(tmp_path / "photos" / "1.png")
    assert open_folder("~/photos").root == tmp_path / "photos"


def test_two_files_never_have_one_id(tmp_path):
    draw(tmp_path / "\\xff.png")
    try:
        os.link(tmp_path / "\\xff.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    with pytest.raises(UsageError, match=r"`images=`: 2 images would have the id .*rename one"):
        open_folder(tmp_path)


def test_two_files_of_one_id_are_refused_by_name(tmp_path):
    draw(tmp_path / os.fsdecode(b"a\xff.png"))
    assert open_folder(tmp_path).ids == [r"a\xff.png"]
    draw(tmp_path / r"a\xff.png")
    with pytest.raises(UsageError, match=r"a\\+xff\.png"):
        open_folder(tmp_path)
