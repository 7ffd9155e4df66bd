from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError
from xaikit.images import SkippedImages, iter_batches, open_images
from xaikit.images.reopening import reopen


def test_exactly_one_input(tmp_path):
    with pytest.raises(UsageError, match=r"`webdataset=` and `dataset=`, got none"):
        open_images()
    with pytest.raises(UsageError, match="got `images=` and `webdataset=`"):
        open_images(images=tmp_path, webdataset="x.tar")
    with pytest.raises(UsageError, match="got `imagenet_root=` and the demo"):
        open_images(imagenet_root=tmp_path, demo=True)


@pytest.mark.parametrize("count", [0, -1])
def test_max_images_is_positive(tmp_path, count):
    with pytest.raises(UsageError, match=f"`max_images=` is {count}"):
        open_images(images=tmp_path, max_images=count)


def test_max_images_counts_usable_ones(tmp_path):
    for number in range(5):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_text("no picture")
    source = open_images(images=tmp_path, max_images=3)
    skipped = SkippedImages()
    preprocess = Preprocess(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    (batch,) = iter_batches(source, preprocess, batch_size=8, skipped=skipped)
    assert batch.ids == ["0.png", "2.png", "3.png"]
    assert [each.id for each in skipped] == ["1.png"]


def test_the_split_of_imagenet_is_the_one_asked_for(monkeypatch, tmp_path):
    from xaikit.images import sources

    monkeypatch.setattr(sources, "open_imagenet", lambda *given, **more: (*given, more))
    assert open_images(imagenet_root=tmp_path, split="train", max_images=3) == (
        tmp_path,
        "train",
        {"limit": 3},
    )


@pytest.mark.parametrize(
    ("name", "opener"), [("webdataset", "open_webdataset"), ("dataset", "open_dataset")]
)
def test_as_many_images_are_wanted_of_every_source(monkeypatch, name, opener):
    from xaikit.images import sources

    monkeypatch.setattr(sources, opener, lambda *given, **more: (*given, more))
    assert open_images(**{name: "x"}, max_images=3) == ("x", {"limit": 3})


def test_the_demo():
    source = open_images(demo=True, seed=3, max_images=2)
    assert len(source) == 2
    assert source.load(1).mode == "RGB"
    assert source.ids != open_images(demo=True, seed=4, max_images=2).ids
    assert reopen(source.describe()).ids == source.ids


def test_a_folder_needs_no_torchvision_and_opening_it_no_torch(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    code = """
import sys
from xaikit.images import open_images
open_images(images=sys.argv[1]).load(0)
assert "torch" not in sys.modules
from xaikit.images import iter_batches
assert "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
