"""`export` and `env`: what goes into other tools and into bug reports."""

from __future__ import annotations

import csv
import json
from importlib.metadata import version

import pyarrow.parquet
import pytest
import torch
from command_line import run

from xaikit.artifacts.results import Circuit, Intervention
from xaikit.artifacts.tensors import Fit
from xaikit.cli.env import needed


def test_every_table_of_every_layer_is_written(small_run, tmp_path, capsys):
    folder = tmp_path / "tables"
    code = run("export", str(small_run), "--parquet", str(folder), "--csv", str(folder), "--json")
    assert code == 0
    said = json.loads(capsys.readouterr().out)["tables"]
    assert set(said) >= {
        "clusters",
        "edges",
        "circuit",
        "cluster_effects",
        "edge_effects",
        "live_effects",
        "curves",
    }
    for name, rows in said.items():
        table = pyarrow.parquet.read_table(folder / f"{name}.parquet")
        with (folder / f"{name}.csv").open(newline="") as file:
            lines = list(csv.reader(file))
        assert table.num_rows == len(lines) - 1 == rows
        assert lines[0] == table.column_names
        if not name.startswith("model_"):
            assert set(table["layer"].to_pylist()) == {1, 3}
    places = [small_run / "layer_1", small_run / "layer_3"]
    paths = [edge for place in places for edge in Circuit.load(place / "circuit.json").paths]
    table = pyarrow.parquet.read_table(folder / "circuit.parquet")
    assert table["weight"].to_pylist() == [edge.weight for edge in paths]
    fitted = [Fit.load(place / "fit.safetensors").prototypes for place in places]
    table = pyarrow.parquet.read_table(folder / "edges.parquet")
    assert table["weight"].to_pylist() == [x for each in fitted for x in each.ravel().tolist()]
    curves = [c for p in places for c in Intervention.load(p / "intervene.json").curves]
    points = pyarrow.parquet.read_table(folder / "curves.parquet")
    assert points["share"].to_pylist() == [share for curve in curves for share in curve["shares"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "."], "pass --parquet DIR, --csv DIR or both"),
        (["export", ".", "--csv", "tables"], "holds no run"),
        (["export", "nowhere", "--csv", "tables"], "nowhere holds no run"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_env_is_one_section_after_the_other(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run("env") == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles[:3] == ["xaikit", "python", "libraries"]
    assert f"  torch: {version('torch')}" in lines
    assert lines[-1].startswith("  ")
    assert "  HF_HUB_OFFLINE: yes" in lines
    assert not any("NO_COLOR" in line for line in lines)


def test_env_names_every_library_that_the_package_needs(capsys):
    assert run("env", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"torch", "numpy", "safetensors", "typer"} <= set(needed())
    assert found["libraries"]["torch"] == version("torch")
    assert set(found["libraries"]) <= set(needed())
    assert found["threads"]["torch"] >= 1
    # What torch was built for is no device.
    real = {"cpu", "cuda", "mps", *(f"cuda:{at}" for at in range(torch.cuda.device_count()))}
    assert "cpu" in found["devices"]
    assert set(found["devices"]) <= real
    assert torch.cuda.is_available() or found["devices"].get("cuda", "none found") == "none found"
