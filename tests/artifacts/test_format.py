"""FORMAT.md is enough to read every artefact: plain json, struct and numpy, nothing of xaikit."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trust.mutations import GOLDEN

import xaikit
from xaikit.artifacts.files import FORMAT_VERSION
from xaikit.towers import load_tower

PAGE = (Path(xaikit.__file__).parent / "artifacts" / "FORMAT.md").read_text(encoding="utf-8")
SHARED = re.findall(
    r"^\| `([^|]*)` \|", PAGE.split("## Fields of every artefact")[1].split("##")[0], re.M
)


def section(title: str) -> str:
    """A section of the page."""
    return re.split(r"^## ", PAGE.split(f"## {title}")[1], maxsplit=1, flags=re.M)[0]


def named(text: str) -> set[str]:
    """Every key that a section names, each in backticks of its own."""
    return set(re.findall(r"`([a-z][a-z_0-9]+)`", text))


@pytest.fixture(scope="module")
def read() -> Any:
    """The page's own example."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert code is not None
    found: dict[str, Any] = {}
    exec(code.group(1), found)
    return found["read"]


@pytest.fixture(scope="module")
def check() -> Any:
    """The page's own check."""
    found: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.S).group(1), found)  # type: ignore[union-attr]
    return found["check"]


def test_the_pages_digests_find_one_flipped_bit_anywhere(check, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("circuit.json", "fit.safetensors", "trace.safetensors"):
        whole = (GOLDEN / "layer_2" / name).read_bytes()
        path = tmp_path / name
        path.write_bytes(whole)
        assert check(path)
        start = 0 if path.suffix == ".json" else 8
        for at in rng.integers(start, len(whole), 40):
            data = bytearray(whole)
            data[at] ^= 1 << int(rng.integers(7))
            path.write_bytes(data)
            # Or it is no JSON any more.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                assert not check(path)


def layers(run: Path) -> list[Path]:
    return sorted(run.glob("layer_*"))


def test_tensors_have_the_dtypes_and_shapes_of_the_page(small_run, read):
    sizes: dict[str, int] = {}
    for folder in layers(small_run):
        for name, title in (("trace", "Trace"), ("features", "Features"), ("fit", "Fit")):
            fields, tensors = read(folder / f"{name}.safetensors")
            sizes |= _sizes(fields, tensors)
            rows = re.findall(r"^\| (`.*?) \| (\S.*?) \| (.*?) \|", section(title), re.M)
            known = {tensor: row for row in rows for tensor in re.findall(r"`(\w+)`", row[0])}
            assert set(tensors) <= set(known)
            for tensor, values in tensors.items():
                _, dtype, shape = known[tensor]
                if values.size:
                    assert values.shape == _shape(shape, sizes), tensor
                assert _named(values.dtype) in dtype or "float" in dtype


def _sizes(fields: dict[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, int]:
    found = {}
    if fields["stage"] == "trace":
        found = {
            "B": len(fields["images"]),
            "N": fields["tokens"],
            "H": fields["heads"],
            "D": fields["width"],
            "F": fields["ffn_width"],
            "E": tensors["queries_l1"].shape[3] if "queries_l1" in tensors else 0,
        }
    if fields["stage"] == "cluster":
        found = {"K": fields["num_clusters"]}
        if "leaf_means" in tensors:
            found |= dict(zip("LZ", tensors["leaf_means"].shape, strict=True))
    if fields["stage"] == "fit":
        found = {
            "J": found.get("K", tensors["prototypes"].shape[2]),
            "draws": len(tensors["null_ablation"]),
        }
    return found


def _shape(text: str, sizes: dict[str, int]) -> tuple[int, ...]:
    names = re.findall(r"`([^`]*)`", text)[0].split()
    return tuple(-(-sizes["F"] // 8) if name == "⌈F/8⌉" else sizes[name] for name in names)


def _named(dtype: np.dtype) -> str:
    return {"f": "F", "i": "I", "u": "U"}[dtype.kind] + str(dtype.itemsize * 8)


def test_every_artefact_has_the_shared_fields(small_run, read):
    shared = set(re.findall(r"\w+", " ".join(SHARED)))
    for folder in layers(small_run):
        parts = [read(path)[0] for path in folder.glob("*.safetensors")]
        parts += [
            json.loads(path.read_text())
            for path in folder.glob("*.json")
            if path.name != "manifest.json"
        ]
        stages = {part["stage"]: part for part in parts}
        assert {"trace", "cluster", "fit", "circuit", "causal", "target-causal"} <= set(stages)
        for stage, part in stages.items():
            assert shared <= set(part), stage
            assert part["format_version"] == FORMAT_VERSION
        for child, parent in (("fit", "cluster"), ("circuit", "fit"), ("causal", "fit")):
            names = {"cluster": "features"}
            assert stages[child]["parents"][names.get(parent, parent)] == stages[parent]["identity"]


VALUES = {"token", "cluster", "prefix", "sink", "patch", "remove", "keep"}
VALUES |= {"embedding", "margin", "kind", "toward", "against", "for"}
OPTIONAL = {
    "Circuit": {"layer", "next_layer", "effect", "side"},
    "Intervention": {"command"},
    "Graph": {"objective", "effect", "side"},
}
"""Keys that are there in some runs alone: of several layers, of a direction, of a command."""


@pytest.mark.parametrize(
    ("name", "title", "records"),
    [
        ("circuit.json", "Circuit", ("paths", "groups")),
        ("causal.json", "Causal", ("effects",)),
        ("target_causal.json", "Target-causal", ("effects",)),
        ("intervene.json", "Intervention", ("curves", "random", "effects")),
        ("graph.json", "Graph", ("nodes", "edges", "graph")),
    ],
)
def test_every_key_that_the_page_names_is_in_the_file(small_run, name, title, records):
    folders = [small_run] if name == "graph.json" else layers(small_run)
    for folder in folders:
        found = json.loads((folder / name).read_text())
        there = set(found)
        for key in records:
            assert found[key], key
            each = found[key] if isinstance(found[key], list) else [found[key]]
            there |= {inner for record in each for inner in record}
        assert named(section(title)) - VALUES - OPTIONAL.get(title, set()) - {"head", "flow"} <= (
            there
        )


def test_circuit_records_are_grouped_as_the_page_says(small_run):
    for folder in layers(small_run):
        found = json.loads((folder / "circuit.json").read_text())
        for kind, key, name in (
            ("by_head", "head", "head"),
            ("by_cluster", "cluster_id", "cluster"),
        ):
            groups: dict[str, list[Any]] = {}
            for path in found["paths"]:
                groups.setdefault(f"{name}_{path[key]}", []).append(path)
            assert found["groups"][kind] == groups
        assert all((p["dst_token"] is None) != (p["dst_cluster"] is None) for p in found["paths"])


def test_numbers_of_the_fit_mean_what_the_page_says(small_run, read):
    folder = layers(small_run)[0]
    _, trace = read(folder / "trace.safetensors")
    fields, features = read(folder / "features.safetensors")
    _, fit = read(folder / "fit.safetensors")
    images = fields["discovery"]
    labels, logits = features["labels"][images], trace["attn_logits_l1"][images].astype(float)
    k = int(np.argmax(np.bincount(labels.ravel())))
    rows = labels == k
    entries = rows[:, :, None] & rows[:, None, :]
    mean = logits[:, 1][entries].mean()
    assert fit["prototypes"][k, 1, k] == pytest.approx(mean, rel=1e-5, abs=1e-5)
    assert fit["pair_counts"][k, k] == entries.sum()
    assert set(np.unique(trace["ffn_gate_l"])) <= {0, 1}


def test_the_graph_reads_as_node_link_data(small_run):
    found = json.loads((small_run / "graph.json").read_text())
    ids = {node["id"] for node in found["nodes"]}
    assert found["directed"]
    assert found["multigraph"]
    assert {edge["source"] for edge in found["edges"]} <= ids
    assert {edge["kind"] for edge in found["edges"]} <= {"head", "flow"}
    assert all(node["id"] == f"{node['layer']}.{node['cluster']}" for node in found["nodes"])


def test_a_folder_of_packed_shards_reads_as_the_page_says(tmp_path, read):
    from command_line import run

    common = ["trace", "--pretrained", "random", "--max-images", "8", "--batch-size", "2", "-q"]
    whole, folder = tmp_path / "whole.safetensors", tmp_path / "trace"
    assert run(*common, "--out", str(whole)) == 0
    assert run(*common, "--packed-gates", "--shard-size", "4", "--out", str(folder)) == 0
    index = json.loads((folder / "index.json").read_text())
    parts = [read(folder / shard["file"]) for shard in index["shards"]]
    assert [len(p[1]["h_l"]) for p in parts] == [shard["images"] for shard in index["shards"]]
    fields, tensors = read(whole)
    assert index["images"] == fields["images"]
    packed = np.concatenate([part[1]["ffn_gate_l_packed"] for part in parts])
    gates = np.unpackbits(packed, axis=-1)[..., : index["ffn_width"]]
    assert np.array_equal(gates, tensors["ffn_gate_l"])


def test_the_manifest_says_what_each_result_is_made_from(small_run: Path) -> None:
    root, *layers = (
        json.loads((folder / "manifest.json").read_text())["results"]
        for folder in (small_run, small_run / "layer_1", small_run / "layer_3")
    )
    tower = load_tower("xaikit-demo", "random", with_text=True)
    assert tower.text is not None
    no_labels = {"labels": "", "text": tower.text.fingerprint}
    for found in layers:
        own = {name: entry["identity"] for name, entry in found.items()}
        made_from = {
            "fit.safetensors": {"features": own["features.safetensors"]},
            "circuit.json": {"fit": own["fit.safetensors"]},
            "causal.json": {"fit": own["fit.safetensors"]},
            "target_causal.json": {"circuit": own["circuit.json"]},
            "intervene.json": {"target-causal": own["target_causal.json"], **no_labels},
        }
        assert {name: found[name]["inputs"] for name in made_from} == made_from
        (trace,) = found["features.safetensors"]["inputs"].values()
        assert trace
        assert {"weights", "images", "preprocess"} <= set(found["trace.safetensors"]["inputs"])
    fits = {
        f"fit_{n}": found["fit.safetensors"]["identity"]
        for n, found in zip((1, 3), layers, strict=True)
    }
    assert root["circuit.json"]["inputs"] == fits
    assert root["intervene.json"]["inputs"] == {
        "circuit": root["circuit.json"]["identity"],
        **no_labels,
    }
    measured = {"rankings", "modes", "shares", "draws", "edges", "ablation", "objective", "seed"}
    decided_by = {
        "features.safetensors": {"num_clusters", "sample_tokens", "method", "prefix", "seed"},
        "fit.safetensors": {"destination", "num_permutations", "null", "null_block", "seed"},
        "circuit.json": {"rank", "top_k", "max_qvalue"},
        "causal.json": {"max_clusters"},
        "target_causal.json": {"top_n", "num_permutations", "seed"},
        "intervene.json": measured | {"max_images", "edge_draws", "other_ablations"},
    }
    for found in (root, *layers):
        for name in decided_by.keys() & found.keys():
            assert decided_by[name] <= found[name]["options"].keys(), name
