"""Damaged, foreign and unwritable files, each answered in one line."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
from dataclasses import replace

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traces import HEADS, TOKENS, blank_info, made_tensors, write
from safetensors import safe_open
from safetensors.torch import save_file

from xaikit.artifacts import files
from xaikit.artifacts.files import (
    FORMAT_VERSION,
    again,
    fingerprint,
    read_json,
    write_json,
    write_tensors,
)
from xaikit.artifacts.results import Causal, Circuit
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.stored import read_tensors
from xaikit.artifacts.tensorfile import encode_header
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import QUERIES_KEYS, Trace
from xaikit.errors import UsageError, XaikitError

SHARED = {"stage": "fit", "format_version": FORMAT_VERSION}


def refused(call, *named):
    """The one line that `call` is refused with, which carries every one of `named`."""
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for each in named:
        assert str(each) in message
    return message


def one_tensor(path, fields=SHARED):
    write_tensors(path, {"x": torch.arange(6.0)}, fields)
    return path


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, np.float32("nan"), np.array([1.0, np.inf], dtype=np.float32)]
)
@pytest.mark.parametrize("nest", [lambda v: v, lambda v: [1.0, {"deep": (v,)}]])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, value, nest):
    for save in (write_json, lambda path, fields: write_tensors(path, {}, fields)):
        with pytest.raises(XaikitError, match="not finite"):
            save(tmp_path / "out", {"effect": nest(value)})
    assert list(tmp_path.iterdir()) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(fields=st.dictionaries(st.text(min_size=1).filter(lambda k: k not in SHARED), json_values))
def test_any_field_comes_back_from_json_and_header(tmp_path_factory, fields):
    folder = tmp_path_factory.mktemp("any")
    write_json(folder / "a.json", {**SHARED, **fields})
    assert read_json(folder / "a.json", "fit") == {**SHARED, **fields}
    header, tensors = read_tensors(one_tensor(folder / "a.st", {**SHARED, **fields}), "fit")
    assert header.fields == {**SHARED, **fields}
    assert tensors["x"].tolist() == list(range(6))
    with safe_open(folder / "a.st", "pt") as file:
        assert file.metadata().items() >= encode_header({**SHARED, **fields}).items()
    assert all(isinstance(value, str) for value in encode_header(fields).values())


def test_every_truncation_is_noticed(tmp_path):
    whole = one_tensor(tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        refused(lambda: read_tensors(tmp_path / "cut", "fit"), tmp_path / "cut")
    (tmp_path / "long").write_bytes(whole + b"x")
    refused(lambda: read_tensors(tmp_path / "long", "fit"), "truncated or damaged")


def header_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"nonsense",
        b"\xff\xfe",
        {"__metadata__": {"stage": "no JSON"}},
        {"x": {"dtype": "F32", "shape": [0], "data_offsets": []}},
        {"x": 3},
        {"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    ],
)
def test_a_damaged_header_is_no_traceback(tmp_path, header):
    if isinstance(header, dict) and "__metadata__" not in header:
        header = {
            "__metadata__": {key: json.dumps(value) for key, value in SHARED.items()}
        } | header
    path = header_file(tmp_path / "bad", header, b"\0" * 4)
    refused(lambda: read_tensors(path, "fit"), path)


@pytest.mark.parametrize("artefact", [Features, Fit, Trace, Circuit, Causal])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x04junk", b"[1]", b"{}", b"\0" * 99]
)
def test_garbage_is_refused_whatever_is_expected(tmp_path, artefact, content):
    (tmp_path / "garbage").write_bytes(content)
    refused(lambda: artefact.load(tmp_path / "garbage"), tmp_path / "garbage")


@pytest.mark.parametrize("artefact", [Features, Fit, Trace, Circuit, Causal])
def test_missing_files_and_folders_are_named(tmp_path, artefact):
    refused(lambda: artefact.load(tmp_path / "absent"), tmp_path / "absent", "xaikit")
    refused(lambda: artefact.load(tmp_path), tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_named(tmp_path):
    one_tensor(tmp_path / "shut").chmod(0)
    refused(lambda: read_tensors(tmp_path / "shut", "fit"), "cannot read", tmp_path / "shut")


def test_another_stage_and_a_later_format_are_refused(tmp_path):
    later = {"stage": "fit", "format_version": FORMAT_VERSION + 1}
    path = one_tensor(tmp_path / "fit.st")
    refused(lambda: Features.load(path), "is a fit file; expected a cluster file")
    refused(lambda: Trace.load(path), "is a fit file; expected a trace file")
    path = one_tensor(tmp_path / "later.st", later)
    refused(lambda: Fit.load(path), f"format version {FORMAT_VERSION + 1}", "upgrade xaikit")
    write_json(tmp_path / "later.json", {**later, "stage": "circuit"})
    refused(lambda: Circuit.load(tmp_path / "later.json"), "upgrade xaikit")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    refused(lambda: Fit.load(tmp_path / "foreign"), "not an xaikit artefact")


@pytest.mark.parametrize("version", [True, None, 2.0, "2", [2]])
def test_a_format_version_is_a_whole_number(tmp_path, version):
    write_json(tmp_path / "a.json", {**SHARED, "format_version": version})
    refused(lambda: read_json(tmp_path / "a.json", "fit"), f"has format version {version};")


def test_an_earlier_format_is_to_be_made_again(tmp_path):
    fields = {"stage": "fit", "format_version": FORMAT_VERSION - 1}
    write_json(tmp_path / "a.json", fields)
    said = refused(lambda: read_json(tmp_path / "a.json", "fit"), "carries no digests")
    assert said.endswith("make it again with `xaikit fit`, or `xaikit run-all`")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("graph", "make it again with `xaikit graph`, or `xaikit run-all`"),
        ("explain", "make it again with `xaikit explain`"),
        ("stability", "make it again with `xaikit stability`"),
        ("groups", "make it again with `xaikit run-all`"),
    ],
)
def test_what_makes_a_file_again_is_a_command_that_there_is(stage, said):
    assert again(stage) == said


def test_what_is_too_large_or_too_deep_for_its_stage_is_refused(tmp_path, monkeypatch):
    nested = 0
    for _ in range(files._DEPTH - 2):
        nested = [nested]
    write_json(tmp_path / "deep.json", {**SHARED, "a": nested})
    assert read_json(tmp_path / "deep.json", "fit")["a"] == nested
    write_json(tmp_path / "deeper.json", {**SHARED, "a": [nested]})
    refused(lambda: read_json(tmp_path / "deeper.json", "fit"), "nested more than 64 deep")
    size = (tmp_path / "deep.json").stat().st_size
    monkeypatch.setattr(files, "_JSON_LIMIT", size)
    read_json(tmp_path / "deep.json", "fit")
    monkeypatch.setattr(files, "_JSON_LIMIT", size - 1)
    refused(lambda: read_json(tmp_path / "deep.json", "fit"), "too large for a fit file")


def test_json_is_for_people_as_well(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    lines = (tmp_path / "a.json").read_text().split("\n")
    assert lines[-4:] == ["    1", "  ]", "}", ""]


def test_incomplete_artefacts_are_refused(tmp_path):
    refused(lambda: Fit.load(one_tensor(tmp_path / "fit.st")), "lacks the field")
    write_json(tmp_path / "circuit.json", {**SHARED, "stage": "circuit"})
    refused(lambda: Circuit.load(tmp_path / "circuit.json"), tmp_path / "circuit.json")


def damaged_folder(tmp_path, damage):
    write(tmp_path / "trace", made_tensors(8), storage=Storage(shard_images=4))
    index = tmp_path / "trace" / "index.json"
    fields = read_json(index, "trace")
    damage(tmp_path / "trace", fields)
    if index.exists():
        # Under a digest that goes with it, or nothing else would be looked at.
        write_json(index, fields)
    return tmp_path / "trace"


def second(folder):
    return folder / "shard-00001.safetensors"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder, fields: (folder / "index.json").unlink(),
        lambda folder, fields: second(folder).unlink(),
        lambda folder, fields: second(folder).write_bytes(second(folder).read_bytes()[:-1]),
        lambda folder, fields: fields["shards"].reverse(),
        lambda folder, fields: fields["shards"].pop(),
        lambda folder, fields: fields.pop("shards"),
        lambda folder, fields: fields.update(shards=[3]),
        lambda folder, fields: fields["images"].append("more.png"),
        lambda folder, fields: fields.update(weights_fingerprint="v" * 16),
        lambda folder, fields: fields.update(layer=7),
        lambda folder, fields: fields.update(tokens=9),
    ],
)
def test_a_damaged_folder_of_shards_is_refused(tmp_path, damage):
    refused(lambda: Trace.load(damaged_folder(tmp_path, damage)), tmp_path / "trace")


@pytest.mark.parametrize(
    "other",
    [
        {"info": blank_info(weights="v" * 16)},
        {"info": blank_info(layer=1)},
        {"info": replace(blank_info(), preprocess={"resize": 9})},
        {"info": replace(blank_info(), prefix_kinds=[])},
        {"info": replace(blank_info(), provenance=replace(blank_info().provenance, options={}))},
        {"skipped": {3}},
    ],
    ids=["weights", "layer", "preprocessing", "prefix", "options", "images"],
)
def test_a_shard_of_another_trace_is_not_taken_for_the_next_one(tmp_path, other):
    folders = tmp_path / "trace", tmp_path / "other"
    for folder, options in zip(folders, ({}, other), strict=True):
        write(folder, made_tensors(9), storage=Storage(shard_images=4), **options)
    own, foreign = (read_json(folder / "index.json", "trace") for folder in folders)
    shutil.copy(second(folders[1]), second(folders[0]))
    own["shards"][1] = foreign["shards"][1]
    write_json(folders[0] / "index.json", own)
    refused(lambda: Trace.load(folders[0]), second(folders[0]), "does not belong to")


def test_an_index_names_files_beside_it_alone(tmp_path):
    folder = damaged_folder(
        tmp_path, lambda folder, fields: fields["shards"][1].update(file=f"../{folder.name}/x")
    )
    refused(lambda: Trace.load(folder), folder / "index.json", "names shards in other folders")


def test_a_trace_in_the_place_of_another_is_read_anew(tmp_path):
    for seed in range(2):
        tensors = made_tensors(4, seed)
        write(tmp_path / "trace", tensors)
        assert torch.equal(Trace.load(tmp_path / "trace").h_l, tensors["h_l"])


def test_gates_are_zeros_and_ones(tmp_path):
    tensors = made_tensors(4)
    tensors["ffn_gate_l"][3, 0, 0] = 2
    write(tmp_path / "trace", tensors)
    refused(lambda: Trace.load(tmp_path / "trace").ffn_gate_l, "ffn_gate_l holds 2", "up to 1")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("h_l", lambda tensor: tensor[:, :, :2]),
        ("attn_logits_l1", lambda tensor: tensor.transpose(1, 2)),
        ("attn_logits_l1", lambda tensor: tensor.double()),
        ("ffn_gate_l", lambda tensor: tensor.bool()),
        ("residual_norms_l1", lambda tensor: tensor[:, :3]),
        ("residual_norms_l1", lambda tensor: tensor.half()),
        ("queries_l1", lambda tensor: tensor[:, :1]),
        ("keys_l1", lambda tensor: tensor[:3]),
        ("keys_l1", lambda tensor: tensor.int()),
    ],
)
def test_every_tensor_of_a_trace_goes_with_what_its_header_says(tmp_path, name, change):
    tensors = made_tensors(4)
    tensors |= {key: torch.randn(4, HEADS, TOKENS, 2) for key in QUERIES_KEYS}
    write(tmp_path / "trace", tensors, storage=Storage(store_qk=True))
    header, stored = read_tensors(tmp_path / "trace", "trace")
    Trace.load(tmp_path / "trace")
    stored[name] = change(stored[name]).contiguous()
    write_tensors(tmp_path / "trace", stored, header.fields)
    refused(lambda: Trace.load(tmp_path / "trace"), tmp_path / "trace", f"{name} has shape")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    refused(lambda: write_json(tmp_path / "file" / "a.json", {}), "cannot write")
    refused(lambda: write_json(tmp_path, {}), "is a folder; pass a file name")


def test_a_failed_write_keeps_what_was_there(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert orjson.loads((tmp_path / "a.json").read_bytes())["old"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_fingerprints_tell_contents_apart_and_ignore_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    parts = [("ab", "c"), ("a", "bc"), ("abc",), (b"ab", b"c"), (b"a", b"bc")]
    found = {fingerprint(*each) for each in parts}
    assert len(found) == len(parts)
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in found)
