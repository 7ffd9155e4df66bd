"""Checkpoints made to hang, to fill the memory or to run something: one line each, quickly."""

from __future__ import annotations

import io
import json
import pickle
import time
import zipfile

import pytest
import torch

from xaikit.errors import XaikitError
from xaikit.towers import archive
from xaikit.towers.fitting import load_weights
from xaikit.towers.reading import read_content


def refused(make, path):
    start = time.perf_counter()
    with pytest.raises(XaikitError) as caught:
        load_weights(make["native"]().module, read_content(path))
    assert time.perf_counter() - start < 20
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def contains_itself():
    tree = {"epoch": 1}
    tree["model"] = tree
    tree["state_dict"] = {"model": tree, "again": tree}
    return tree


def deep():
    tree = {}
    for _ in range(300):
        tree = {"model": tree}
    return tree


def laughs():
    """Thirty levels of two: 2^30 paths, and thirty mappings."""
    tree = {"weight": torch.zeros(1)}
    for _ in range(30):
        tree = {"a": tree, "b": tree}
    return tree


def wide():
    return {f"{'x.' * 50}{number}": torch.zeros(1) for number in range(2000)}


def expanded():
    return {"conv1.weight": torch.zeros(1).expand(10**12)}


def sparse():
    return {
        "conv1.weight": torch.sparse_coo_tensor(
            torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (10**9, 10**9)
        )
    }


def empty():
    return {"conv1.weight": torch.zeros(4, 4, device="meta")}


@pytest.mark.parametrize(
    "make_tree", [contains_itself, deep, laughs, wide, expanded, sparse, empty]
)
def test_shapes_of_content(make, tmp_path, make_tree):
    torch.save(make_tree(), tmp_path / "w.pt")
    refused(make, tmp_path / "w.pt")


def test_nesting_deeper_than_the_stack(make, tmp_path):
    depth = 100_000
    pickled = b"\x80\x02" + b"}X\x01\x00\x00\x00m" * depth + b"}" + b"s" * depth + b"."
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/version", "3\n")
    refused(make, tmp_path / "w.pt")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("it ran",))


def archive_with(pickled, path):
    """A TorchScript archive whose pickle is ours."""
    made = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), made)
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            own = record.filename.endswith("/data.pkl")
            target.writestr(record.filename, pickled if own else source.read(record))


def test_an_archives_pickle_runs_nothing(make, tmp_path):
    archive_with(pickle.dumps(Evil(), protocol=2), tmp_path / "w.pt")
    assert "TorchScript archive" in refused(make, tmp_path / "w.pt")
    archive_with(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", tmp_path / "v.pt")
    assert "TorchScript archive" in refused(make, tmp_path / "v.pt")


def test_an_archives_code_is_never_compiled(make, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_a, **_k: pytest.fail("compiled"))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    said = refused(make, tmp_path / "w.pt")
    assert "TorchScript archive" in said
    assert "bias" in said


def test_compressed_bombs_are_not_unpacked(make, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\0" * 50_000_000)
        archive.writestr("w/version", "3\n")
    refused(make, tmp_path / "w.pt")


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 1000])
def test_torn_files(make, tmp_path, cut):
    torch.save({"conv1.weight": torch.zeros(100)}, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[:cut])
    refused(make, tmp_path / "w.pt")


def index_of(tmp_path, *shards):
    path = tmp_path / "w.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {f"{at}": each for at, each in enumerate(shards)}}))
    return path


def test_an_index_names_files_beside_it(tmp_path):
    (tmp_path / "inside").mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "one.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "inside" / "one.pt")
    # Wherever it says that they are.
    assert float(read_content(index_of(tmp_path, "inside/one.pt")).tree["a"].sum()) == 2
    assert float(read_content(index_of(tmp_path, "/etc/one.pt")).tree["a"].sum()) == 2


@pytest.mark.parametrize("shard", ["w.safetensors.index.json", "list.pt", "tensor.pt", "..", ""])
def test_an_index_of_what_is_no_shard_is_refused(make, tmp_path, shard):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    refused(make, index_of(tmp_path, shard))


def test_an_index_names_no_other_index(make, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "one.pt")
    index_of(tmp_path, "one.pt").rename(tmp_path / "other.safetensors.index.json")
    said = refused(make, index_of(tmp_path, "other.safetensors.index.json"))
    assert "names other.safetensors.index.json, which is no shard of weights" in said


def test_a_jax_archive_says_what_to_pass(make, tmp_path):
    (tmp_path / "w.npz").write_bytes(b"PK")
    assert "pass the timm or open_clip file of the same weights" in refused(
        make, tmp_path / "w.npz"
    )


def test_of_an_archive_s_names_only_its_own_classes_are_allowed():
    pickled = b"\x80\x02c__torch__.m\nNet\n0cos\nsystem\n."
    assert archive._own_classes(pickled) == {"__torch__.m.Net"}


@pytest.mark.parametrize(
    ("classes", "activation"),
    [
        ({"__torch__.clip.QuickGELU", "__torch__.Linear"}, "quick_gelu"),
        ({"__torch__.torch.nn.GELU"}, "gelu"),
        ({"__torch__.QuickGELU", "__torch__.GELU"}, None),
        ({"__torch__.Linear"}, None),
    ],
)
def test_an_archive_says_its_activation_where_it_has_one(classes, activation):
    assert archive._activation(classes) == activation


def test_an_archive_s_list_of_tensors_has_a_limit(make, tmp_path, monkeypatch):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    assert set(read_content(tmp_path / "w.pt").tree) == {"weight", "bias"}
    monkeypatch.setattr(archive, "_LIMIT", 10)
    assert "cannot be read without running its code" in refused(make, tmp_path / "w.pt")


def test_the_globals_that_a_file_would_call_are_named(make, tmp_path):
    torch.save({"hook": print}, tmp_path / "w.pt")
    assert "print" in refused(make, tmp_path / "w.pt")
