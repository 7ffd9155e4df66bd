"""`inspect`: shapes, metadata and health of any file."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import slow_definitions as slow
import torch
from command_line import run
from conftest import make_features, make_trace
from made_traces import made_tensors, write
from safetensors.torch import save_file

from xaikit.artifacts.json_artifact import JsonArtifact
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import INDEX
from xaikit.errors import UsageError
from xaikit.report import inspection
from xaikit.report.inspection import LOADERS, inspect_file, shown_value
from xaikit.stages.fit import fit


def test_every_file_of_a_run(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [p for p in run_folder.iterdir() if p.suffix in (".json", ".safetensors")]
    assert len(files) >= 6
    for path in files:
        assert run("inspect", str(path)) == 0
        assert path.name in capsys.readouterr().out
    found = inspect_file(run_folder / "fit.safetensors")
    assert found["stage"] == "fit"
    (prototypes,) = (row for row in found["tensors"] if row["name"] == "prototypes")
    assert prototypes["shape"] == [6, 4, 65]
    assert prototypes["dtype"] == "F32"
    assert prototypes["bytes"] == 6 * 4 * 65 * 4


def test_metadata_is_in_the_same_order_every_time(run_folder: Path) -> None:
    fields = list(inspect_file(run_folder / "fit.safetensors")["fields"])
    assert fields == sorted(fields)


def test_json_of_a_file(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(run_folder / "circuit.json"), "--json") == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["stage"] == "circuit"
    assert found["fields"]["layer"] == 3


def test_health_names_what_is_wrong(run_folder: Path, tmp_path: Path) -> None:
    features = Features.load(run_folder / "features.safetensors")
    path = tmp_path / "features.safetensors"
    features.cluster_sizes[0] += 1
    features.save(path)
    (said,) = inspect_file(path)["health"]
    assert "cluster_sizes do not count its labels" in said
    features.centroids[0, :2] = float("nan")
    features.save(path)
    said, why = inspect_file(path)["health"]
    assert said == "centroids: 2 values are not finite"
    assert "centroids holds numbers that are not finite" in why
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert "changed or damaged" in inspect_file(path)["health"][-1]


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(3, 2), "n": torch.tensor(5)}, path)
    found = inspect_file(path)
    assert found["stage"] is None
    assert {row["name"]: row["shape"] for row in found["tensors"]} == {"w": [3, 2], "n": []}
    assert "no stage" in found["health"][0]


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    short.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "page.html").write_text("")
    for name in ("short.safetensors", "list.json", "page.html", "none.json", "."):
        with pytest.raises(UsageError):
            inspect_file(tmp_path / name)
    assert run("inspect", str(short)) == 2


def test_every_json_artefact_is_read_as_its_stage_reads_it(tmp_path: Path) -> None:
    assert {kind.STAGE for kind in JsonArtifact.__subclasses__()} <= set(LOADERS)
    (tmp_path / "graph.json").write_text('{"stage": "graph"}')
    assert inspect_file(tmp_path / "graph.json")["health"] != []


def test_a_trace_that_was_changed_is_not_healthy(tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    write(path, made_tensors(3))
    assert inspect_file(path)["health"] == []
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    (said,) = inspect_file(path)["health"]
    assert "changed or damaged" in said


def test_a_folder_is_the_sum_of_its_shards_and_names_what_is_wrong_with_each(
    tmp_path: Path,
) -> None:
    shards = [{"file": f"{name}.safetensors"} for name in ("a", "b", "c")]
    (tmp_path / INDEX).write_bytes(orjson.dumps({"stage": "trace", "shards": shards}))
    for name, value in (("a", 1.0), ("c", float("inf"))):
        save_file({"w": torch.tensor([0.0, value])}, tmp_path / f"{name}.safetensors")
    found = inspect_file(tmp_path)
    assert (found["kind"], found["file"]) == ("folder of shards", str(tmp_path))
    assert found["bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    files = [Path(row["file"]).name for row in found["tensors"]]
    assert files == ["a.safetensors", "c.safetensors"]
    assert "b.safetensors is missing" in found["health"]
    assert "c.safetensors: w: 1 values are not finite" in found["health"]
    assert not any("a.safetensors: w" in line for line in found["health"])


def test_numbers_that_are_not_given_are_no_fault_and_others_are(tmp_path: Path) -> None:
    nan = torch.tensor([float("nan"), 1.0])
    path = tmp_path / "x.safetensors"
    save_file({"edge_pvalues": nan, "prototypes": nan.clone()}, path)
    said = [line for line in inspect_file(path)["health"] if "finite" in line]
    assert said == ["prototypes: 1 values are not finite"]


def test_what_is_odd_about_clusters_and_their_fit_is_said(tmp_path: Path) -> None:
    logits, labels = slow.random_case(0, B=8, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 5, [1, 3])
    features.save(tmp_path / "features.safetensors")
    empty = int((features.cluster_sizes == 0).sum())
    assert empty > 0
    said = f"{empty} of 5 clusters are empty"
    assert inspect_file(tmp_path / "features.safetensors")["health"] == [said]
    made = fit(trace, features, num_permutations=3)
    made.save(tmp_path / "fit.safetensors")
    without, edges = int(made.untestable.sum()), made.untestable.numel()
    assert 0 < without < edges
    (said,) = inspect_file(tmp_path / "fit.safetensors")["health"]
    assert said == f"{without} of {edges} edges are not testable"
    features = make_features(trace, torch.from_numpy(labels), 5)
    features.method = "guided"
    features.identify().save(tmp_path / "features.safetensors")
    assert "nothing was held out" in inspect_file(tmp_path / "features.safetensors")["health"]
    fit(trace, features, num_permutations=3).save(tmp_path / "fit.safetensors")
    assert inspect_file(tmp_path / "fit.safetensors")["health"] == [
        f"{edges} of {edges} edges are not testable",
        "no image to test on: guided clusters have seen the attention of all",
    ]


def row_of(tmp_path: Path, values: torch.Tensor) -> dict:
    """What is said of one tensor."""
    save_file({"w": values}, tmp_path / "w.safetensors")
    (row,) = inspect_file(tmp_path / "w.safetensors")["tensors"]
    return row


def test_a_tensor_is_read_in_slabs_and_a_large_one_is_sampled_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.arange(20, dtype=torch.float32).flip(0).roll(7).reshape(10, 2)
    values[7, 0] = float("nan")
    monkeypatch.setattr(inspection, "SLAB", 4)
    monkeypatch.setattr(inspection, "MOST", 20)
    row = row_of(tmp_path, values)
    finite = values[torch.isfinite(values)]
    assert (row["min"], row["max"], row["not_finite"]) == (0.0, 19.0, 1)
    assert row["mean"] == pytest.approx(float(finite.mean()))
    assert not row["sampled"]
    monkeypatch.setattr(inspection, "SLAB", 2)
    monkeypatch.setattr(inspection, "MOST", 8)
    row = row_of(tmp_path, torch.arange(10.0)[:, None].expand(-1, 2).contiguous())
    # Every third row: no more numbers than are to be read.
    assert (row["min"], row["mean"], row["max"], row["sampled"]) == (0.0, 4.5, 9.0, True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a name", "a name"),
        ("x" * 70, "x" * 70),
        ("x" * 71, "x" * 69 + "…"),
        ([1, 2, 3, 4, 5, 6], "[1,2,3,4,5,6]"),
        (list(range(1234)), "1,234 items"),
        (list(range(7)), "7 items"),
        ({"a": 1}, '{"a":1}'),
        ({f"key {at}": "x" * 9 for at in range(8)}, "8 entries: key 0, key 1, key 2"),
    ],
)
def test_a_field_is_short_in_its_cell(value: object, shown: str) -> None:
    found = shown_value(value)
    assert found.startswith(shown) if isinstance(value, dict) else found == shown
    assert len(found) <= 70
