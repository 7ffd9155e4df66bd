from __future__ import annotations

import io
import json
import tarfile

import pytest
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage
from xaikit.images.webdataset import open_webdataset


def png(brightness):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (brightness,) * 3).save(file, "PNG")
    return file.getvalue()


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def brightness(source):
    return [source.load(i).getpixel((0, 0))[0] for i in range(len(source))]


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        members = [(f"{number}{key}.png", png(10 * number + key)) for key in range(2)]
        shard(tmp_path / f"train-{number:04d}.tar", members)
    return tmp_path


IDS = [f"train-{number:04d}.tar/{number}{key}" for number in range(3) for key in range(2)]


@pytest.mark.parametrize(
    "spec",
    ["", "train-*.tar", "train-{0000..0002}.tar", "train-000{0,1,2}.tar", "{train,train}-*.tar"],
)
def test_every_way_to_name_shards(shards, spec):
    source = open_webdataset(str(shards / spec), limit=5)
    assert source.ids == IDS
    assert brightness(source) == [0, 1, 10, 11, 20, 21]
    assert source.groups is None
    assert source.limit == 5
    facts = source.describe()
    assert (facts["kind"], facts["count"], len(facts["shards"])) == ("webdataset", 6, 3)
    json.dumps(facts)


def test_members_are_grouped_by_key(tmp_path):
    path = shard(
        tmp_path / "x.tar",
        [
            ("./a/1.cls", b"7\n"),
            ("./a/1.png", png(1)),
            ("./a/1.json", b"{}"),
            ("./a/1.seg.png", png(99)),
            ("2.WEBP", b"broken"),
            ("2.PNG", png(2)),
            ("3.txt", b"no image"),
            ("._4.png", png(4)),
            ("5.png", png(5)),
            ("5.png", png(55)),
        ],
    )
    source = open_webdataset(path)
    assert source.ids == ["x.tar/a/1", "x.tar/2", "x.tar/5"]
    assert source.groups == ["7", "", ""]
    assert brightness(source) == [1, 2, 55]


def test_shards_of_the_same_name(tmp_path):
    for part in ("a", "b"):
        shard(tmp_path / part / "x.tar", [("1.png", png(1))])
    source = open_webdataset(f"{tmp_path}/{{b,a}}/x.tar")
    assert source.ids == ["b/x.tar/1", "a/x.tar/1"]


def test_a_damaged_member_is_one_bad_image(tmp_path):
    source = open_webdataset(shard(tmp_path / "x.tar", [("1.jpg", b"text"), ("2.jpg", b"")]))
    for i, words in enumerate(("known format", "empty")):
        with pytest.raises(BadImage, match=rf"x\.tar/{i + 1}: .*{words}"):
            source.load(i)
    source.shards[0].unlink()
    with pytest.raises(BadImage, match="shard cannot be read"):
        source.load(0)


def test_what_is_no_shard(tmp_path):
    whole = shard(tmp_path / "whole.tar", [("1.png", bytes(2000)), ("2.png", png(2))])
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:1500])
    (tmp_path / "text.tar").write_text("no tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.add(whole, "1.png")
    shard(tmp_path / "other.tar", [("1.txt", b"")])
    (tmp_path / "none").mkdir()
    for name, words in {
        "cut.tar": r"cut\.tar: not a whole, uncompressed tar",
        "text.tar": r"text\.tar: not a whole, uncompressed tar",
        "empty.tar": r"empty\.tar: not a whole, uncompressed tar",
        "zipped.tar": r"zipped\.tar: not a whole, uncompressed tar",
        "other.tar": "no jpg/jpeg/png/webp member",
        "missing-{0..1}.tar": r"missing-0\.tar': no such shard",
        "none": "no .tar files",
    }.items():
        with pytest.raises(UsageError, match=f"--webdataset.*{words}"):
            open_webdataset(tmp_path / name)
