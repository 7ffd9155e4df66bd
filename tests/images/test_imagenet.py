from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.imagenet import open_imagenet
from xaikit.images.reopening import reopen

CLASSES = {"n00000001": ("cat", "house cat"), "n00000002": ("dog",)}


@pytest.fixture
def root(tmp_path):
    torch.save((CLASSES, ["n00000001", "n00000002"]), tmp_path / "meta.bin")
    for split in ("train", "val"):
        for wnid in CLASSES:
            (tmp_path / split / wnid).mkdir(parents=True)
    for number, wnid in enumerate(("n00000002", "n00000001", "n00000002")):
        Image.new("RGB", (6, 4)).save(tmp_path / "val" / wnid / f"val_{number}.JPEG")
    return tmp_path


def test_ids_groups_and_pixels(root):
    source = open_imagenet(root, "val", limit=2)
    assert source.ids == ["n00000001/val_1.JPEG", "n00000002/val_0.JPEG", "n00000002/val_2.JPEG"]
    assert source.groups == ["n00000001", "n00000002", "n00000002"]
    assert source.load(0).size == (6, 4)
    assert source.limit == 2
    facts = source.describe()
    assert (facts["kind"], facts["split"], facts["count"]) == ("imagenet", "val", 3)


def test_a_split_is_opened_again_from_its_description(root):
    source = open_imagenet(root, "val")
    again = reopen(source.describe())
    assert (again.ids, again.groups) == (source.ids, source.groups)
    assert [again.digest(i) for i in range(3)] == [source.digest(i) for i in range(3)]


def test_what_is_missing_is_named(root):
    with pytest.raises(UsageError, match="no images in train/"):
        open_imagenet(root, "train")
    with pytest.raises(UsageError, match="`split=test`"):
        open_imagenet(root, "test")
    with pytest.raises(UsageError, match=r"`imagenet_root=.*no such folder"):
        open_imagenet(root / "missing")
    (root / "val").rename(root / "validation")
    with pytest.raises(UsageError, match=r"val or ILSVRC2012_img_val\.tar"):
        open_imagenet(root)
    (root / "meta.bin").unlink()
    with pytest.raises(UsageError, match=r"meta\.bin or ILSVRC2012_devkit_t12\.tar\.gz"):
        open_imagenet(root)


def test_a_folder_that_is_no_class(root):
    (root / "val" / "stray").mkdir()
    with pytest.raises(UsageError, match="val/stray is no class"):
        open_imagenet(root)


def test_a_damaged_archive_is_one_line(root):
    (root / "meta.bin").unlink()
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"not the real one")
    with pytest.raises(UsageError, match=r"torchvision says: .*devkit") as caught:
        open_imagenet(root)
    assert "\n" not in str(caught.value)


class Payload:
    def __reduce__(self):
        return eval, ("open('owned', 'w').close() or ({}, [])",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle", "cut", "wrong content"])
def test_meta_bin_cannot_run_code(root, how, monkeypatch):
    monkeypatch.chdir(root)
    meta = root / "meta.bin"
    if how == "torch":
        torch.save(Payload(), meta)
    elif how == "pickle":
        meta.write_bytes(pickle.dumps(Payload()))
    elif how == "cut":
        meta.write_bytes(meta.read_bytes()[:100])
    else:
        torch.save(3, meta)
    with pytest.raises(UsageError, match="`imagenet_root=") as caught:
        open_imagenet(root)
    assert "\n" not in str(caught.value)
    assert not (root / "owned").exists()
