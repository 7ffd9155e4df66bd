"""`inspect`: shapes, metadata and health of any file."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch
from command_line import run
from safetensors.torch import save_file

from xaikit.artifacts.tensors import Features
from xaikit.errors import UsageError
from xaikit.report.inspection import inspect_file


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
