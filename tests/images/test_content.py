from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass

import pytest
from PIL import Image

from xaikit.images import content_fingerprint, open_images
from xaikit.images.decoding import BadImage
from xaikit.images.digests import digest_of, digest_of_failure


def draw(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), colour).save(path)


def tar_of(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_folders_with_equal_names_differ_by_what_is_in_the_files(tmp_path):
    for folder, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        draw(tmp_path / folder / "x" / "1.png", colour)
        draw(tmp_path / folder / "x" / "2.png", "green")
    found = {each: content_fingerprint(open_images(images=tmp_path / each)) for each in "abc"}
    assert found["a"] == found["c"] != found["b"]
    assert len(found["a"]) == 32


def test_ids_groups_and_order_count(tmp_path):
    draw(tmp_path / "a" / "x" / "1.png")
    draw(tmp_path / "a" / "x" / "2.png", "blue")
    draw(tmp_path / "b" / "y" / "1.png")
    draw(tmp_path / "b" / "y" / "2.png", "blue")
    source = open_images(images=tmp_path / "a")
    every = [
        content_fingerprint(source),
        content_fingerprint(source, [1, 0]),
        content_fingerprint(source, [0]),
        content_fingerprint(source, []),
        content_fingerprint(open_images(images=tmp_path / "b")),
    ]
    assert len(set(every)) == len(every)
    assert content_fingerprint(source, [0, 1], workers=1) == every[0]


@pytest.mark.parametrize("settled", [True, False])
def test_a_file_that_changed_has_another_digest_for_the_same_source(tmp_path, settled):
    path = tmp_path / "1.png"
    draw(path, "red")
    if settled:
        os.utime(path, (1e9, 1e9))
    source = open_images(images=tmp_path)
    before = source.digest(0)
    assert before == source.digest(0) == digest_of(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert source.digest(0) == digest_of(path.read_bytes()) != before


def test_each_file_is_asked_whether_it_changed(tmp_path):
    for name in "12":
        draw(tmp_path / f"{name}.png", "red")
        os.utime(tmp_path / f"{name}.png", (1e9, 1e9))
    source = open_images(images=tmp_path)
    before = [source.digest(i) for i in range(2)]
    draw(tmp_path / "2.png", "blue")
    assert source.digest(0) == before[0]
    assert source.digest(1) != before[1]


def test_load_and_digest_share_one_read(tmp_path, monkeypatch):
    from xaikit.images import digests, folder

    for name in "12":
        draw(tmp_path / f"{name}.png")
    source = open_images(images=tmp_path)
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**12))
    reads = []
    read = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda *args: reads.append(args) or read(*args))
    source.load(1)
    assert source.digest(1) == digest_of((tmp_path / "2.png").read_bytes())
    assert len(reads) == 1


def test_unreadable_images_have_the_digest_of_the_reason(tmp_path):
    draw(tmp_path / "1.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    source = open_images(images=tmp_path)
    assert source.ids[1:] == ["gone.png", "pipe.png"]
    assert source.digest(1) == digest_of_failure("no such file or directory")
    assert source.digest(2) == digest_of_failure("not a regular file")
    assert source.digest(2) != digest_of(b"not a regular file")
    assert len(content_fingerprint(source)) == 32


def test_members_of_shards(tmp_path):
    draw(tmp_path / "1.png")
    data = (tmp_path / "1.png").read_bytes()
    shard = tmp_path / "s.tar"
    tar_of(shard, {"1.png": data, "2.png": data[:40]})
    source = open_images(webdataset=shard)
    assert source.digest(0) == digest_of(data)
    assert source.digest(1) == digest_of(data[:40])
    shard.write_bytes(shard.read_bytes()[:520])
    assert source.digest(0) == digest_of_failure("its shard is cut short")
    shard.unlink()
    why = "its shard cannot be read: No such file or directory"
    assert source.digest(0) == digest_of_failure(why)


def test_scenes_by_what_is_drawn():
    first, second = (open_images(demo=True, seed=seed, max_images=3) for seed in (0, 1))
    assert first.digest(0) == digest_of(first.load(0).tobytes()) != second.digest(0)


@dataclass
class Made:
    colours: list[str]
    groups: list[str] | None = None

    @property
    def ids(self):
        return [str(i) for i in range(len(self))]

    def __len__(self):
        return len(self.colours)

    def load(self, i):
        if self.colours[i] == "bad":
            raise BadImage(str(i), "bad")
        return Image.new("RGB", (2, 3), self.colours[i])


def test_a_source_without_digests_has_its_pixels_hashed():
    lists = (["red", "bad"], ["red", "blue"], ["bad", "red"])
    assert len({content_fingerprint(Made(each)) for each in lists}) == 3
    assert content_fingerprint(Made(["red"])) == content_fingerprint(Made(["red"]))


def test_another_class_of_an_image_is_another_content():
    """Labels of shards and of data sets are in no name and no pixel."""
    lists = (None, ["cat", "dog"], ["cat", "cat"])
    assert len({content_fingerprint(Made(["red", "blue"], each)) for each in lists}) == 3


def test_progress_is_reported(tmp_path):
    said = []
    source = open_images(demo=True, max_images=300)
    content_fingerprint(source, progress=lambda *args: said.append(args))
    assert said == [("images compared", 256, 300), ("images compared", 300, 300)]
