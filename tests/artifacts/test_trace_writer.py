"""Traces as they are written: whole, in shards, cut short and gone on from."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_traces import (
    GATES,
    HEADS,
    TOKENS,
    WIDTH,
    blank_info,
    candidates_of,
    ids_of,
    made_tensors,
    write,
)

from xaikit.artifacts import tensorfile, trace_writer
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.stored import read_header
from xaikit.artifacts.trace import Trace
from xaikit.artifacts.trace_writer import writing
from xaikit.errors import UsageError, XaikitError

SHARDS = Storage(shard_images=4)


def assert_reads_back(trace, tensors, dtype=torch.float32):
    assert trace.images == ids_of(len(tensors["h_l"]))
    assert torch.equal(trace.h_l, tensors["h_l"].to(dtype).float())
    assert torch.equal(trace.attn_logits_l1, tensors["attn_logits_l1"].to(dtype).float())
    assert torch.equal(trace.ffn_gate_l, tensors["ffn_gate_l"])
    assert torch.equal(trace.residual_norms_of(np.arange(len(trace))), tensors["residual_norms_l1"])
    assert trace.ffn_gate_l.dtype == torch.uint8


@pytest.mark.parametrize("shard_images", [0, 3, 4])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_storage_reads_back_the_same(tmp_path, dtype, packed, shard_images):
    tensors = made_tensors(9)
    storage = Storage(dtype=dtype, packed_gates=packed, shard_images=shard_images)
    info = write(tmp_path / "trace", tensors, storage=storage)
    trace = Trace.load(tmp_path / "trace")
    assert_reads_back(trace, tensors, getattr(torch, dtype))
    assert trace.identity == info.identity
    assert trace.info == info
    assert trace.info.groups == [f"group-{i % 2}" for i in range(9)]


def test_contracts_names_shapes_and_types(tmp_path):
    write(tmp_path / "trace.safetensors", made_tensors(3))
    header = read_header(tmp_path / "trace.safetensors", "trace")
    fields, table = header.fields, header.table
    shapes = {name: (entry["dtype"], entry["shape"]) for name, entry in table.items()}
    assert shapes["h_l"] == ("F32", [3, TOKENS, WIDTH])
    assert shapes["ffn_gate_l"] == ("U8", [3, TOKENS, GATES])
    assert shapes["attn_logits_l1"] == ("F32", [3, HEADS, TOKENS, TOKENS])
    assert (fields["images"], fields["layer"], fields["next_layer"]) == (ids_of(3), 2, 3)


@pytest.fixture(params=[tensorfile._MOVE, 72])
def move(request, monkeypatch):
    """Bytes that are moved at once: all of a small file, or a part that is no whole row."""
    monkeypatch.setattr(tensorfile, "_MOVE", request.param)


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize("capacity", [7, 50])
def test_fewer_images_than_expected_are_closed_up(tmp_path, capacity):
    tensors = made_tensors(5)
    write(tmp_path / "trace", tensors, capacity=capacity)
    assert_reads_back(Trace.load(tmp_path / "trace"), tensors)


@pytest.mark.usefixtures("move")
def test_a_header_that_outgrows_its_room_is_given_more(tmp_path):
    tensors = made_tensors(4)
    info = blank_info()
    info.source = {"note": '"' * 300_000}
    write(tmp_path / "trace", tensors, info=info)
    trace = Trace.load(tmp_path / "trace")
    assert_reads_back(trace, tensors)
    assert trace.info.source == info.source


@pytest.mark.parametrize("shard_images", [0, 4])
def test_slices_match_the_whole(tmp_path, shard_images):
    tensors = made_tensors(9)
    write(tmp_path / "trace", tensors, storage=Storage(shard_images=shard_images))
    trace, logits = Trace.load(tmp_path / "trace"), tensors["attn_logits_l1"]
    assert torch.equal(trace.logits(2, 9), logits[2:9])
    assert torch.equal(trace.logits(3, 6, head=1), logits[3:6, 1])
    assert torch.equal(trace.logits(0, 9, head=0, dst=3), logits[:, 0, :, 3])
    assert torch.equal(trace.logits(3, 5, dst=2), logits[3:5, :, :, 2])
    assert torch.equal(trace.gates(4, 9), tensors["ffn_gate_l"][4:9])
    parts = list(trace.iter_logits([8, 3, 4], head=1, chunk_bytes=1))
    assert [at.tolist() for at, _ in parts] == [[3], [4], [8]]
    assert torch.equal(torch.cat([part for _, part in parts]), logits[[3, 4, 8], 1])


@pytest.mark.parametrize("storage", [Storage(), SHARDS])
def test_an_interrupted_run_leaves_nothing_that_reads_as_whole(tmp_path, storage):
    path = tmp_path / "trace"
    with pytest.raises(KeyboardInterrupt):
        write(path, made_tensors(9), storage=storage, stop=6)
    with pytest.raises(UsageError):
        Trace.load(path)
    left = [each.name for each in tmp_path.rglob("*") if each.is_file()]
    assert left == (["shard-00000.safetensors"] if storage.shard_images else [])


def test_an_interrupted_run_does_not_touch_an_earlier_trace(tmp_path):
    write(tmp_path / "trace", made_tensors(4))
    before = (tmp_path / "trace").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "trace", made_tensors(9, seed=1), stop=4)
    assert (tmp_path / "trace").read_bytes() == before


@pytest.mark.parametrize(("batch", "stop"), [(2, 6), (2, 8), (4, 8), (3, 6), (5, 5)])
def test_going_on_gives_the_same_bytes(tmp_path, batch, stop):
    tensors = made_tensors(11)
    options = {"storage": SHARDS, "batch": batch, "skipped": {0, 5, 9}}
    used = [i for i in range(11) if i not in {0, 5, 9}]
    write(tmp_path / "straight", tensors, **options)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "resumed", tensors, stop=stop, **options)
    write(tmp_path / "resumed", tensors, **options)
    names = sorted(each.name for each in (tmp_path / "straight").iterdir())
    assert names == ["index.json", *(f"shard-{i:05d}.safetensors" for i in range(2))]
    for name in names:
        found = [(tmp_path / run / name).read_bytes() for run in ("straight", "resumed")]
        assert found[0] == found[1], name
    trace = Trace.load(tmp_path / "resumed")
    assert trace.info.candidate_positions().tolist() == used
    assert trace.info.skipped_at == [0, 5, 9]
    assert torch.equal(trace.h_l, tensors["h_l"][used])


def test_shards_of_images_that_were_changed_meanwhile_are_written_again(tmp_path):
    before, after = made_tensors(9), made_tensors(9, seed=1)
    after = {name: torch.cat([before[name][:4], after[name][4:]]) for name in before}
    write(tmp_path / "trace", before, storage=SHARDS)
    first = (tmp_path / "trace" / "shard-00000.safetensors").stat()
    # The second image of the second shard has the same name and another content.
    write(tmp_path / "trace", after, storage=SHARDS, contents={5: "changed"})
    assert_reads_back(Trace.load(tmp_path / "trace"), after)
    again = (tmp_path / "trace" / "shard-00000.safetensors").stat()
    assert (first.st_ino, first.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)


def test_an_image_that_could_not_be_used_and_now_can_is_read(tmp_path):
    tensors, options = made_tensors(9), {"storage": SHARDS, "batch": 1}
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "trace", tensors, stop=8, skipped={1}, **options)
    write(tmp_path / "trace", tensors, contents={1: "mended"}, **options)
    assert_reads_back(Trace.load(tmp_path / "trace"), tensors)


def test_going_on_does_not_write_complete_shards_again(tmp_path):
    tensors = made_tensors(8)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "trace", tensors, storage=SHARDS, stop=6)
    first = (tmp_path / "trace" / "shard-00000.safetensors").stat()
    write(tmp_path / "trace", tensors, storage=SHARDS)
    again = (tmp_path / "trace" / "shard-00000.safetensors").stat()
    assert (first.st_ino, first.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)


@pytest.mark.parametrize(
    "other", [{"layer": 1}, {"weights": "v" * 16}], ids=["other layer", "other weights"]
)
def test_another_traces_shards_are_refused_and_left_readable(tmp_path, other):
    tensors = made_tensors(8)
    write(tmp_path / "trace", tensors, storage=SHARDS)
    with pytest.raises(UsageError, match="holds shards of another trace; pass `force=True`"):
        write(tmp_path / "trace", tensors, storage=SHARDS, info=blank_info(**other))
    assert_reads_back(Trace.load(tmp_path / "trace"), tensors)
    write(tmp_path / "trace", made_tensors(5), storage=SHARDS, info=blank_info(**other), force=True)
    assert len(Trace.load(tmp_path / "trace")) == 5


def test_force_removes_no_file_of_another_name_than_shards_have(tmp_path):
    tensors, others = made_tensors(5), ("shard-mine.safetensors", "old-shard-00000.safetensors")
    write(tmp_path / "trace", tensors, storage=SHARDS)
    for name in others:
        (tmp_path / "trace" / name).write_text("not made here")
    write(tmp_path / "trace", tensors, storage=SHARDS, force=True)
    assert all((tmp_path / "trace" / name).read_text() == "not made here" for name in others)


def otherwise(**changed):
    """What a trace of the same layers and weights says that differs in something else."""
    info = blank_info()
    options = changed.pop("options", info.provenance.options)
    return replace(info, provenance=replace(info.provenance, options=options), **changed)


@pytest.mark.parametrize(
    ("images", "other"),
    [
        (8, {"storage": replace(SHARDS, dtype="float16")}),
        (8, {"storage": replace(SHARDS, packed_gates=True)}),
        (8, {"info": otherwise(source={"kind": "another place"})}),
        (8, {"info": otherwise(options={"precision": "float16"})}),
        (8, {"info": otherwise(preprocess={"resize": 9})}),
        (5, {}),
    ],
    ids=["format", "packed", "source", "precision", "preprocessing", "fewer images"],
)
def test_nothing_goes_on_from_shards_of_other_images_or_another_form(tmp_path, images, other):
    tensors = made_tensors(8)
    write(tmp_path / "trace", tensors, storage=SHARDS)
    with pytest.raises(UsageError, match="holds shards of another trace; pass `force=True`"):
        write(tmp_path / "trace", made_tensors(images), **{"storage": SHARDS, **other})
    assert_reads_back(Trace.load(tmp_path / "trace"), tensors)


@pytest.mark.parametrize("force", [False, True])
def test_what_is_written_again_is_no_trace_until_it_is_whole(tmp_path, force):
    write(tmp_path / "trace", made_tensors(8), storage=SHARDS)
    with (
        writing(tmp_path / "trace", blank_info(), SHARDS, candidates_of(8), force=force),
        pytest.raises(UsageError, match=r"has no index\.json"),
    ):
        Trace.load(tmp_path / "trace")


def test_a_shard_that_was_damaged_meanwhile_is_written_again(tmp_path):
    tensors, path = made_tensors(9), tmp_path / "trace" / "shard-00000.safetensors"
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "trace", tensors, storage=SHARDS, stop=6)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    write(tmp_path / "trace", tensors, storage=SHARDS)
    assert_reads_back(Trace.load(tmp_path / "trace"), tensors)


def test_names_and_digests_that_no_header_has_room_for_are_refused(tmp_path, monkeypatch):
    candidates, storage = candidates_of(6), Storage()
    names = candidates.header_bytes(6)
    digests = tensorfile.digest_bytes(storage.columns(blank_info()), 6)
    monkeypatch.setattr(trace_writer, "HEADER_LIMIT", names + digests)
    write(tmp_path / "trace", made_tensors(6), storage=storage)
    monkeypatch.setattr(trace_writer, "HEADER_LIMIT", names + digests - 1)
    with pytest.raises(UsageError, match=r"the names of 6 images make a header .*`shard_size=`"):
        write(tmp_path / "other", made_tensors(6), storage=storage)
    write(tmp_path / "shards", made_tensors(6), storage=SHARDS)


@pytest.mark.parametrize("storage", [Storage(), SHARDS])
def test_more_images_than_announced_are_an_error(tmp_path, storage):
    with pytest.raises(XaikitError, match=r"more than \d images"):
        write(tmp_path / "trace", made_tensors(6), storage=storage, capacity=5)


def test_a_disk_that_is_too_small_is_said_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="GiB are free: pass a smaller `max_images=`"):
        write(tmp_path / "trace", made_tensors(2), info=blank_info(width=10**13))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_file_are_not_confused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="is a folder; pass a file name"):
        write(tmp_path / "folder", made_tensors(2))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; a trace in shards needs a folder"):
        write(tmp_path / "file", made_tensors(2), storage=SHARDS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("storage", [Storage(), SHARDS])
def test_a_killed_process_leaves_nothing_that_reads_as_whole(tmp_path, storage):
    class Killed(dict):
        def __getitem__(self, name):
            if self.armed:
                os._exit(9)
            return super().__getitem__(name)

    child = os.fork()
    if child == 0:
        with writing(tmp_path / "trace", blank_info(), storage, candidates_of(9)) as writer:
            for armed in (False, True):
                tensors = Killed(made_tensors(3))
                tensors.armed = armed
                writer.add([0, 1, 2], tensors)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert len(left) == 1
    for path in (tmp_path / "trace", *left):
        with pytest.raises(UsageError):
            Trace.load(path)


@pytest.mark.parametrize("shard_images", [0, 2])
@pytest.mark.parametrize(
    ("name", "place", "value", "dtype", "words"),
    [
        (
            "attn_logits_l1",
            (4, 1, 0, 2),
            1e5,
            "float16",
            "logit of layer 3 of image {}, head 1 is 1",
        ),
        ("attn_logits_l1", (4, 0, 3, 3), -65520.0, "float16", "head 0 is -65520"),
        ("attn_logits_l1", (4, 0, 3, 3), 3.4e38, "bfloat16", "cannot hold .*`store_dtype=float32`"),
        ("h_l", (4, 3, 2), 7e4, "float16", "input of the FFN of layer 2 of image {} is 70000"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_file(
    tmp_path, name, place, value, dtype, words, shard_images
):
    tensors = made_tensors(6)
    tensors[name][place] = value
    storage = Storage(dtype=dtype, shard_images=shard_images)
    with pytest.raises(UsageError, match=words.format(ids_of(6)[4])) as caught:
        write(tmp_path / "trace", tensors, storage=storage, batch=3)
    assert "pass `store_dtype=" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").is_file()
    assert not (tmp_path / "trace" / "index.json").exists()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_names_the_image_and_the_head(tmp_path, value):
    tensors = made_tensors(6)
    tensors["attn_logits_l1"][4, 1, 0, 2] = value
    said = f"an attention logit of layer 3 of image {ids_of(6)[4]}, head 1 is {value}: check the"
    with pytest.raises(XaikitError, match=said):
        write(tmp_path / "trace", tensors, batch=3)
    assert not list(tmp_path.iterdir())


def test_the_largest_number_fits(tmp_path):
    tensors = made_tensors(2)
    tensors["attn_logits_l1"][0, 0, 0, 0] = 65519.0
    write(tmp_path / "trace", tensors, storage=Storage(dtype="float16"))
    assert Trace.load(tmp_path / "trace").attn_logits_l1[0, 0, 0, 0] == 65504


@pytest.mark.parametrize("shard_images", [0, 2])
def test_what_a_killed_run_left_is_no_missing_room(tmp_path, monkeypatch, shard_images):
    import shutil
    from types import SimpleNamespace

    target = tmp_path / "trace"
    folder = target if shard_images else tmp_path
    folder.mkdir(exist_ok=True)
    name = "shard-00007.safetensors" if shard_images else "trace"
    left = folder / f".{name}.99-0123abcd.partial"
    left.write_bytes(b"x")
    free = lambda _: SimpleNamespace(free=0 if left.exists() else 2**40)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    write(target, made_tensors(4), storage=Storage(shard_images=shard_images))
    assert not left.exists()
    assert len(Trace.load(target)) == 4


def test_room_is_wanted_for_what_is_not_there_yet(tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    tensors, storage = made_tensors(12), Storage(shard_images=4)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "trace", tensors, storage=storage, stop=8)
    third = 4 * storage.image_bytes(blank_info())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=third - 1))
    with pytest.raises(UsageError, match=r"the trace would take .* are free"):
        write(tmp_path / "trace", tensors, storage=storage)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=third))
    write(tmp_path / "trace", tensors, storage=storage)
    assert_reads_back(Trace.load(tmp_path / "trace"), tensors)


def part_of(path, tensors, number, processes, **options):
    """One process's part of a trace that several write, as far as its shards."""
    candidates = candidates_of(len(tensors["h_l"]))
    candidates = replace(candidates, own=candidates.part(number, processes), total=12)
    prefix = f"part-{number}-of-{processes}-" if processes > 1 else ""
    storage = Storage(shard_images=2)
    info = options.pop("info", None) or blank_info()
    with writing(path, info, storage, candidates, prefix=prefix, **options) as writer:
        for at in range(writer.cursor, candidates.own.stop, 2):
            part = list(range(at, min(at + 2, candidates.own.stop)))
            writer.add(part, {name: tensor[part] for name, tensor in tensors.items()})
        writer.finish_shards()


def test_shards_of_another_number_of_processes_are_removed(tmp_path):
    tensors = made_tensors(12)
    for number in range(2):
        part_of(tmp_path, tensors, number, 2)
    assert len(names(tmp_path)) == 6
    part_of(tmp_path, tensors, 0, 3)
    assert names(tmp_path) == [f"part-0-of-3-shard-0000{i}.safetensors" for i in range(2)]
    part_of(tmp_path, tensors, 0, 1)
    assert names(tmp_path) == [f"shard-0000{i}.safetensors" for i in range(6)]


def test_shards_of_another_trace_are_refused_whatever_wrote_them(tmp_path):
    tensors = made_tensors(12)
    part_of(tmp_path, tensors, 0, 2, info=blank_info(layer=1))
    before = names(tmp_path)
    with pytest.raises(UsageError, match="holds shards of another trace; pass `force=True`"):
        part_of(tmp_path, tensors, 0, 3)
    assert names(tmp_path) == before
    part_of(tmp_path, tensors, 0, 3, force=True)
    assert names(tmp_path) == [f"part-0-of-3-shard-0000{i}.safetensors" for i in range(2)]


def names(folder):
    return sorted(each.name for each in folder.iterdir())
