"""Files of tensors as they are mapped: offsets that are believed, pages that are private."""

from __future__ import annotations

import os
import time

import pytest
import torch
from safetensors.torch import load

from xaikit.artifacts import digests, stored, tensorfile
from xaikit.artifacts.files import FORMAT_VERSION, write_tensors
from xaikit.artifacts.stored import StoredTensors, read_header, read_tensors
from xaikit.artifacts.tensorfile import digests_of, header_of, tensor_bytes
from xaikit.errors import UsageError

SHARED = {"stage": "fit", "format_version": FORMAT_VERSION}
TENSORS = {
    "a": torch.arange(5, dtype=torch.uint8),
    "b": torch.arange(6.0).reshape(2, 3),
    "c": torch.tensor(2.5, dtype=torch.float64),
}


def by_hand(path, tensors=TENSORS, offsets=None, room=0):
    """Write tensors one after the other in the order given, aligned or not, at any offsets."""
    table, at = {}, 0
    kinds = tensorfile.DTYPE_NAMES
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        kind = kinds[str(tensor.dtype).removeprefix("torch.")]
        table[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    for name, own in (offsets or {}).items():
        table[name]["data_offsets"] = own
    header, _ = header_of(SHARED, digests_of(tensors), table, room)
    body = b"".join(bytes(tensor_bytes(each)) for each in tensors.values())
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path


def test_tensors_that_are_not_aligned_are_read_all_the_same(tmp_path):
    path = by_hand(tmp_path / "t")
    others = load(path.read_bytes())
    file = StoredTensors(path, "fit")
    for name, tensor in TENSORS.items():
        assert torch.equal(others[name], tensor)
        assert torch.equal(file.read(name), tensor), name
        # Where a number starts in the middle of a word, it is read from a copy.
        assert file.read(name).data_ptr() % tensor.itemsize == 0
    assert torch.equal(file.read("b", (slice(1, 2),)), TENSORS["b"][1:])
    assert torch.equal(file.read("b", (slice(0, 2), slice(1, 3))), TENSORS["b"][:, 1:])


def test_tensors_that_are_written_here_are_aligned(tmp_path):
    kinds = ["uint8", "float64", "bfloat16", "int32", "bool", "int64", "float16"]
    tensors = {f"{at}": torch.ones(3, dtype=getattr(torch, kind)) for at, kind in enumerate(kinds)}
    write_tensors(tmp_path / "t", tensors, SHARED)
    header = read_header(tmp_path / "t", "fit")
    for name, tensor in tensors.items():
        begin, _ = header.table[name]["data_offsets"]
        assert (header.start + begin) % tensor.itemsize == 0, name


def test_data_moves_up_over_itself_where_a_header_outgrows_its_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorfile, "_MOVE", 3000)
    column = tensorfile.Column(name="a", dtype="uint8", shape=(5000,))
    values = torch.randint(0, 256, (4, 5000), dtype=torch.uint8)
    writer = tensorfile.ColumnWriter(tmp_path / "t", [column], capacity=4, header_bytes=100)
    writer.append({"a": values})
    writer.finish({**SHARED, "note": "x" * 5000})
    writer.close()
    assert torch.equal(StoredTensors(tmp_path / "t", "fit").read("a"), values)


@pytest.mark.parametrize(
    "offsets",
    [{"b": [0, 24]}, {"b": [1, 25], "c": [25, 33]}, {"a": [0, 4], "b": [4, 28]}, {"c": [21, 29]}],
    ids=["on another", "over another", "shorter", "into another"],
)
def test_tensors_lie_one_after_the_other(tmp_path, offsets):
    with pytest.raises(UsageError, match="is damaged or no safetensors file"):
        read_header(by_hand(tmp_path / "t", offsets=offsets), "fit")


def test_a_header_that_other_readers_do_not_accept_is_not_read(tmp_path, monkeypatch):
    path = by_hand(tmp_path / "t", room=4096)
    monkeypatch.setattr(stored, "HEADER_LIMIT", 4096)
    assert read_header(path, "fit").start == 8 + 4096
    monkeypatch.setattr(stored, "HEADER_LIMIT", 4095)
    with pytest.raises(UsageError, match="is damaged or no safetensors file"):
        read_header(path, "fit")


def test_what_is_changed_in_place_never_reaches_the_file(tmp_path):
    path = by_hand(tmp_path / "t")
    before = path.read_bytes()
    tensor = StoredTensors(path, "fit").read("a")
    tensor += 1
    assert path.read_bytes() == before
    assert torch.equal(read_tensors(path, "fit")[1]["a"], TENSORS["a"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own_to_check_with(tmp_path, monkeypatch):
    for module in (digests, stored, tensorfile):
        monkeypatch.setattr(module, "BLOCK_BYTES", 16)
    values = torch.arange(100)
    write_tensors(tmp_path / "t", {"a": values}, SHARED)
    assert torch.equal(StoredTensors(tmp_path / "t", "fit").read("a"), values)
    child = os.fork()
    if child == 0:
        os._exit(not torch.equal(StoredTensors(tmp_path / "t", "fit").read("a"), values))
    end = time.monotonic() + 20
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("it waits for threads that it does not have")
    assert os.waitstatus_to_exitcode(status) == 0
