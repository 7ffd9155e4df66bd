from __future__ import annotations

import glob
import io
import json
import tarfile

import pytest
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage
from xaikit.images.reopening import reopen
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


def test_numbers_in_braces_are_as_wide_as_they_are_written(tmp_path):
    for name in ("x8", "x9", "x10", "y08", "y10"):
        shard(tmp_path / f"{name}.tar", [(f"{name}.png", png(1))])
    found = [each.split("/")[0] for each in open_webdataset(f"{tmp_path}/x{{8..10}}.tar").ids]
    assert found == ["x8.tar", "x9.tar", "x10.tar"]
    with pytest.raises(UsageError, match=r"y09\.tar': no such shard"):
        open_webdataset(f"{tmp_path}/y{{08..10}}.tar")


def test_a_name_that_is_there_is_no_pattern(tmp_path):
    path = shard(tmp_path / "a[1]{2,3}.tar", [("1.png", png(1))])
    shard(tmp_path / "a12.tar", [("2.png", png(2))])
    assert open_webdataset(path).shards == [path]
    folder = tmp_path / "f[1]{2,3}"
    inside = shard(folder / "x.tar", [("1.png", png(1))])
    shard(tmp_path / "f1" / "y.tar", [("2.png", png(2))])
    assert open_webdataset(folder).shards == [inside]
    assert open_webdataset(f"{tmp_path}/a12.tar").shards == [tmp_path / "a12.tar"]


def test_a_pattern_looks_into_folders_and_finds_shards_in_the_order_of_their_names(
    tmp_path, monkeypatch
):
    members = [("1.png", png(1))]
    names = [shard(tmp_path / part / "x.tar", members) for part in ("a/c", "b")]
    found = glob.glob
    for order in (sorted, lambda each: sorted(each)[::-1]):
        monkeypatch.setattr(glob, "glob", lambda *g, order=order, **more: order(found(*g, **more)))
        assert open_webdataset(f"{tmp_path}/**/*.tar").shards == names


def test_what_is_not_read_is_counted_over_all_shards(tmp_path):
    for name in "ab":
        members = [(f"{name}.png", png(1)), (f"{name}2.txt", b"no image")]
        shard(tmp_path / f"{name}.tar", members)
    said = "not read from the shards: 2 samples without a picture (.txt)"
    assert open_webdataset(tmp_path).left_out == said


def test_a_label_is_a_few_words(tmp_path):
    members = [("1.png", png(1)), ("1.cls", b"x" * 1000), ("2.png", png(2)), ("2.cls", b"x" * 1001)]
    source = open_webdataset(shard(tmp_path / "x.tar", members))
    assert source.groups == ["x" * 1000, ""]


def test_a_shard_that_was_cut_since_is_a_bad_image(tmp_path):
    path = shard(tmp_path / "x.tar", [("1.png", png(1)), ("2.png", png(2))])
    source = open_webdataset(path)
    path.write_bytes(path.read_bytes()[:530])
    with pytest.raises(BadImage, match="its shard is cut short"):
        source.load(0)


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
        "other.tar": r"no image in 1 shard\(s\) \(1 samples without a picture \(\.txt\)\)",
        "missing-{0..1}.tar": r"missing-0\.tar': no such shard",
        "none": "no .tar files",
    }.items():
        with pytest.raises(UsageError, match=f"`webdataset=.*{words}"):
            open_webdataset(tmp_path / name)


def opened(path):
    """The source, or what is said against it."""
    try:
        return open_webdataset(path)
    except UsageError as error:
        return str(error)


def test_every_cut_is_noticed(tmp_path):
    whole = shard(tmp_path / "x.tar", [(f"{i}.png", png(i)) for i in range(3)]).read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    passed = []
    for length in [*range(0, len(whole), 128), *range(end - 3, end + 4)]:
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        found = opened(tmp_path / "cut.tar")
        if isinstance(found, str):
            assert "\n" not in found
            assert "cut.tar: not a whole, uncompressed tar file" in found
        else:
            assert len(found) == 3
            passed += [] if found.left_out else [length]
    # Two empty blocks are the end of an archive, and all that some programs write.
    assert passed == [end + 1024]
    assert open_webdataset(tmp_path / "x.tar").left_out == ""


def test_what_follows_the_end_is_noticed(tmp_path):
    data = [shard(tmp_path / f"{n}.tar", [(f"{n}.png", png(n))]).read_bytes() for n in (1, 2)]
    damaged = bytearray(
        shard(tmp_path / "d.tar", [("1.png", png(1)), ("2.png", png(2))]).read_bytes()
    )
    damaged[1024 + 148 : 1024 + 156] = b"7777777\0"
    negative = bytearray(data[0])
    negative[124:136] = b"\xff" * 11 + b"\x00"
    negative[148:156] = b" " * 8
    negative[148:156] = f"{sum(negative[:512]):06o}\0 ".encode()
    for content in (b"".join(data), data[0] + b"x" * 512, bytes(damaged), bytes(negative)):
        (tmp_path / "bad.tar").write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.tar: not a whole, uncompressed tar file"):
            open_webdataset(tmp_path / "bad.tar")


def test_dots_in_names_make_no_picture_vanish(tmp_path):
    names = [f"{i:06d}.jpg" for i in range(2)] + [f"DSC.{i:06d}.jpg" for i in range(2, 4)]
    source = open_webdataset(shard(tmp_path / "x.tar", [(name, png(1)) for name in names]))
    assert source.ids == [f"x.tar/{name.removesuffix('.jpg')}" for name in names]
    assert source.left_out == ""


def test_several_pictures_a_sample(tmp_path):
    members = [("1.left.png", png(1)), ("1.right.png", png(2)), ("1.cls", b"a")]
    members += [("2.png", png(3)), ("2.seg.png", png(4)), ("2.jpg", png(5)), ("2.right.cls", b"b")]
    members += [("3.left.png", png(6)), ("3.left.cls", b"c"), ("4.heix", b""), ("5.heix", b"")]
    members += [("3.left.png", png(7))]
    source = open_webdataset(shard(tmp_path / "x.tar", members))
    assert source.ids == ["x.tar/1.left", "x.tar/1.right", "x.tar/2", "x.tar/3.left"]
    assert source.groups == ["a", "a", "", "c"]
    assert brightness(source) == [1, 2, 5, 7]
    for words in (
        "1 pictures beside another (.seg.png)",
        "1 pictures beside another (.png)",
        "2 samples without a picture (.heix)",
        "1 members that a later one of their name replaces",
    ):
        assert words in source.left_out


def test_links_and_sparse_members_are_left_out(tmp_path):
    path = shard(tmp_path / "x.tar", [("1.png", png(1))])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        sparse = tarfile.TarInfo("3.png")
        sparse.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(sparse)
    source = open_webdataset(path)
    assert source.ids == ["x.tar/1"]
    assert source.left_out == "not read from the shards: 2 members that are no plain files"


def test_two_members_never_have_one_id(tmp_path):
    path = shard(tmp_path / "x.tar", [("\\xff.png", png(1)), ("\udcff.png", png(2))])
    with pytest.raises(UsageError, match=r"2 images would have the id .*rename one"):
        open_webdataset(path)


def test_shards_are_opened_again_from_their_description(tmp_path):
    for name in "ab":
        shard(tmp_path / f"{name}[v2].tar", [("1.png", png(1))])
    source = open_webdataset(tmp_path)
    assert reopen(source.describe()).ids == source.ids
