"""Hugging Face data sets as images."""

from __future__ import annotations

import io
import json
import sys

import datasets
import pytest
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images import content_fingerprint, huggingface, open_images
from xaikit.images.decoding import BadImage
from xaikit.images.digests import digest_of
from xaikit.images.huggingface import DatasetSource, Spec, open_dataset
from xaikit.images.reopening import reopen


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


COLOURS = ("red", "lime", "blue")


def rows(images=None, **columns):
    images = [png(colour) for colour in COLOURS] if images is None else images
    kinds = {
        name: datasets.ClassLabel(names=["cat", "dog"]) if name == "label" else datasets.Image()
        for name in columns
    }
    stored = [each if each is None else {"bytes": each, "path": None} for each in images]
    features = datasets.Features({"image": datasets.Image(), **kinds})
    return datasets.Dataset.from_dict({"image": stored, **columns}, features=features)


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "photos[v2]: a @ b"
    both = datasets.DatasetDict(train=rows(label=[0, 1, -1]), test=rows([png("white")], label=[0]))
    both.save_to_disk(str(folder))
    return folder


def test_a_saved_data_set_has_rows_labels_and_bytes(saved):
    with pytest.raises(UsageError, match=r"its splits are test, train; name one, as in .*:test"):
        open_dataset(saved)
    assert len(reopen(open_dataset(f"{saved}:test").describe())) == 1
    rows(label=[0, 1, -1]).save_to_disk(str(saved.parent / "one"))
    source = open_images(dataset=saved.parent / "one", max_images=2)
    assert source.ids == [f"all/{row:08d}" for row in range(3)]
    assert source.groups == ["cat", "dog", ""]
    assert source.limit == 2
    assert source.load(1).getpixel((0, 0)) == (0, 255, 0)
    assert source.digest(2) == digest_of(png("blue"))
    json.dumps(source.describe())
    assert content_fingerprint(reopen(source.describe())) == content_fingerprint(source)


def test_splits_and_columns_are_named(tmp_path, monkeypatch):
    both = datasets.DatasetDict(a=rows(), b=rows(depth=[{"bytes": png("white"), "path": None}] * 3))
    both.save_to_disk(str(tmp_path / "d"))
    monkeypatch.chdir(tmp_path)
    assert open_dataset("d:a").ids[0] == "a/00000000"
    assert open_dataset("d:a").groups is None
    with pytest.raises(UsageError, match="its columns of images are image, depth; name one"):
        open_dataset("d:b")
    source = open_dataset("d:b:depth")
    assert source.load(0).getpixel((0, 0)) == (255, 255, 255)
    assert source.describe()["spec"] == f"{tmp_path / 'd'}:b:depth"
    assert len(reopen(source.describe())) == 3
    for wrong in ("d:c", "d:a:depth", "d:a:image:more", ":a"):
        with pytest.raises(UsageError, match="`dataset="):
            open_dataset(wrong)


def test_a_folder_of_files_is_read_with_its_folders_as_labels(tmp_path):
    for folder in ("cat", "dog"):
        (tmp_path / "f" / folder).mkdir(parents=True)
        (tmp_path / "f" / folder / "1.png").write_bytes(png("red"))
    source = open_dataset(f"{tmp_path / 'f'}:train")
    assert source.groups == ["cat", "dog"]
    assert source.load(1).size == (8, 6)
    assert source.digest(0) == digest_of(png("red"))
    (tmp_path / "f" / "dog" / "1.png").unlink()
    with pytest.raises(BadImage, match="no such file"):
        source.load(1)


def test_rows_without_a_usable_image_are_bad_images(tmp_path):
    rows([png("red"), None, b"no image", b""]).save_to_disk(str(tmp_path / "d"))
    source = open_dataset(tmp_path / "d")
    for row, words in ((1, "no image in this row"), (2, "known format"), (3, "empty file")):
        with pytest.raises(BadImage, match=words):
            source.load(row)
        assert len(source.digest(row)) == 32


def labelled(**columns):
    """Images beside columns of class labels or of plain values."""
    features = {name: kind for name, (kind, _) in columns.items()}
    values = {name: given for name, (_, given) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


CLASSES = datasets.ClassLabel(names=["cat", "dog"])
NUMBERS, TEXT = datasets.Value("int64"), datasets.Value("string")


@pytest.mark.parametrize(
    ("columns", "groups"),
    [
        ({"kind": (CLASSES, [1, None, -1])}, ["dog", "", ""]),
        ({"kind": (CLASSES, [1, 1]), "label": (CLASSES, [0, 1])}, ["cat", "dog"]),
        ({"kind": (CLASSES, [1, 1]), "other": (CLASSES, [0, 1])}, None),
        ({"label": (NUMBERS, [3, None])}, ["3", ""]),
        ({"label": (TEXT, ["a", None])}, ["a", ""]),
        ({"name": (TEXT, ["a", "b"])}, None),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, dict) else "",
)
def test_groups_are_the_only_classes_or_what_is_called_a_label(columns, groups):
    assert huggingface._labels(labelled(**columns)) == groups


def test_a_split_keeps_its_name_and_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    own = labelled(label=(TEXT, ["a"]))
    named = datasets.Dataset(own.data, info=own.info, split=datasets.Split("train"))
    assert huggingface._split(named, Spec("d", None, None, None))[1] == "train"
    with pytest.raises(UsageError, match="its only split is train"):
        huggingface._split(named, Spec("d", None, "all", None))
    rows().save_to_disk(str(tmp_path / "d"))
    assert len(open_dataset("~/d")) == 3


@pytest.mark.parametrize("path", [None, "", "https://nowhere/1.png", "zip://1.png::x.zip"])
def test_an_image_that_is_elsewhere_is_not_fetched(path):
    spec = Spec("d", None, "all", "image")
    stored = [{"image": {"bytes": None, "path": path}}]
    source = DatasetSource(rows=stored, spec=spec, ids=["all/0"], groups=None)
    with pytest.raises(BadImage, match="its file is not in the data set"):
        source.load(0)


def test_the_only_split_has_one_name_and_rows(tmp_path, monkeypatch):
    rows().save_to_disk(str(tmp_path / "d"))
    assert len(open_dataset(f"{tmp_path / 'd'}:all")) == 3
    with pytest.raises(UsageError, match="its only split is all"):
        open_dataset(f"{tmp_path / 'd'}:train")
    monkeypatch.setattr(huggingface, "_loaded", lambda _spec: rows([]))
    with pytest.raises(UsageError, match="no rows in split all"):
        open_dataset("none")


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_shown_again_where_they_were(saved, shown):
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        open_dataset(f"{saved}:test")
        assert datasets.are_progress_bars_disabled() is not shown
    finally:
        datasets.enable_progress_bars()


def test_what_is_no_data_set_of_images_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "text"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    for name in ("text", "empty", "broken", "absent"):
        with pytest.raises(UsageError, match=r"^`dataset=") as caught:
            open_dataset(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_without_the_package_the_line_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'xaikit\[datasets\]'"):
        open_dataset(saved)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("org/name", Spec("org/name", None, None, None)),
        ("org/name:test", Spec("org/name", None, "test", None)),
        ("org/name@config:test:left", Spec("org/name", "config", "test", "left")),
        ("org/name::left", Spec("org/name", None, None, "left")),
    ],
)
def test_names_are_read_and_written(text, spec):
    assert Spec.parse(text) == spec
    assert str(spec) == text


def test_nothing_is_run(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match=r"^`dataset="):
        open_dataset(tmp_path / "d")
    assert not (tmp_path / "ran").exists()
