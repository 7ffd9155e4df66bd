"""Digests of whole files and of the blocks of tensors."""

from __future__ import annotations

import random

import pytest
import torch
import xxhash

from xaikit.artifacts import digests, stored, tensorfile
from xaikit.artifacts.digests import (
    BLANK,
    DIGEST,
    BlockDigests,
    DamagedError,
    blocks_of,
    require_blocks,
    require_seal,
    sealed,
)
from xaikit.artifacts.files import FORMAT_VERSION, read_json, write_json, write_tensors
from xaikit.artifacts.stored import StoredTensors, read_header
from xaikit.errors import UsageError

BLOCK = 16


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few bytes, so that a small tensor has several."""
    for module in (digests, stored, tensorfile):
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)


def test_a_seal_is_of_every_byte() -> None:
    data, digest = sealed(b'{"digest": "%s", "a": 12}' % BLANK.encode())
    require_seal(data, {DIGEST: digest}, "f", "again")
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(DamagedError, match="f was changed or damaged"):
            require_seal(changed, {DIGEST: digest}, "f", "again")
    for none in (None, 3, "", digest[:-1], BLANK.replace("0", "g")):
        with pytest.raises(DamagedError, match="carries no digest"):
            require_seal(data, {DIGEST: none}, "f", "again")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 5])
def test_blocks_are_cut_at_the_same_places_however_bytes_come(size: int) -> None:
    rng = random.Random(size)
    data = rng.randbytes(size)
    plain = [
        xxhash.xxh3_64_hexdigest(data[start : start + BLOCK]) for start in range(0, size, BLOCK)
    ]
    assert blocks_of(data) == plain
    for _ in range(5):
        pieces, at = BlockDigests(), 0
        while at < size:
            step = rng.randint(1, 2 * BLOCK + 3)
            pieces.update(data[at : at + step])
            at += step
        assert pieces.found() == plain
    assert require_blocks({"a": plain}, {"a": size}, "f", "again") == {"a": plain}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"a": ["x", "y"], "b": []},
        {"a": ["x"]},
        {"a": ["x", "y", "z"]},
        {"a": ["x", 3]},
        {"a": "xy"},
        {"b": ["x", "y"]},
    ],
)
def test_each_block_of_each_tensor_has_one_digest(given: object) -> None:
    with pytest.raises(DamagedError, match="no digests of its tensors"):
        require_blocks(given, {"a": BLOCK + 1}, "f", "again")


@pytest.mark.usefixtures("small_blocks")
def test_a_change_in_any_block_is_found_by_what_reads_it_and_by_nothing_else(tmp_path) -> None:
    path = tmp_path / "t.safetensors"
    values = torch.arange(100, dtype=torch.int64)
    write_tensors(path, {"a": values}, {"stage": "fit", "format_version": 2})
    whole = path.read_bytes()
    rows = BLOCK // 8
    start = len(whole) - 800
    for block in (0, 1, 27, 49):
        damaged = bytearray(whole)
        damaged[start + block * BLOCK + 3] ^= 4
        # What is mapped is not cut: a file of its own for each.
        path = tmp_path / f"{block}.safetensors"
        path.write_bytes(damaged)
        tensors = StoredTensors(path, "fit")
        with pytest.raises(DamagedError, match="a was changed or damaged"):
            tensors.read("a", (slice(block * rows, block * rows + 1),))
        with pytest.raises(DamagedError, match="a was changed or damaged"):
            StoredTensors(path, "fit").read("a")
        with pytest.raises(DamagedError, match="a was changed or damaged"):
            StoredTensors(path, "fit").require_whole()
        other = slice((block + 1) % 50 * rows, (block + 1) % 50 * rows + rows)
        assert torch.equal(tensors.read("a", (other,)), values[other])


def test_a_changed_field_of_a_json_file_or_of_a_header_is_found(tmp_path) -> None:
    fields = {"stage": "run", "format_version": 2, "seed": 1234}
    json, header = tmp_path / "run.json", tmp_path / "t.safetensors"
    write_json(json, fields)
    write_tensors(header, {"a": torch.zeros(3)}, fields)
    assert read_json(json, "run")["seed"] == read_header(header, "run").fields["seed"] == 1234
    for path, read in ((json, read_json), (header, read_header)):
        data = path.read_bytes()
        assert data.count(b"1234") == 1
        path.write_bytes(data.replace(b"1234", b"1235"))
        with pytest.raises(DamagedError, match=f"{path.name} was changed or damaged"):
            read(path, "run")


def test_bytes_that_are_no_gates_are_refused_though_they_were_written(tmp_path) -> None:
    path = tmp_path / "t.safetensors"
    gates = torch.tensor([0, 1, 2, 0], dtype=torch.uint8)
    write_tensors(path, {"g": gates}, {"stage": "trace", "format_version": 2})
    assert torch.equal(StoredTensors(path, "trace", {"g": 2}).read("g"), gates)
    with pytest.raises(UsageError, match="g holds 2, expected numbers up to 1"):
        StoredTensors(path, "trace", {"g": 1}).read("g")


def test_only_the_digest_s_own_place_is_filled(tmp_path):
    """Zeros elsewhere are somebody's text."""
    write_json(
        tmp_path / "a.json", {"stage": "fit", "format_version": FORMAT_VERSION, "name": BLANK}
    )
    assert read_json(tmp_path / "a.json", "fit")["name"] == BLANK


@pytest.mark.parametrize("spoilt", [lambda d: d[:-1] + "0f"[d[-1] == "0"], lambda d: d + "0"])
def test_every_digit_of_a_digest_counts(spoilt):
    data, digest = sealed(b'{"digest":"%s","a":1}' % BLANK.encode())
    require_seal(data, {"digest": digest}, "a.json", "again")
    other = spoilt(digest)
    with pytest.raises(DamagedError, match=r"a\.json .*: again"):
        require_seal(
            data.replace(digest.encode(), other.encode()), {"digest": other}, "a.json", "again"
        )
