"""What `run-all` leaves at the root of a run of several layers."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.results import Circuit, Intervention
from xaikit.artifacts.run_record import run_folders
from xaikit.artifacts.tensors import Features
from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.reuse import MANIFEST
from xaikit.run.run_all import run_all
from xaikit.stages.intervene import InterveneOptions
from xaikit.towers import load_tower

FILES = ((Circuit, "circuit.json"), (Intervention, "intervene.json"))
FEW = {
    "num_clusters": 4,
    "sample_tokens": 500,
    "num_permutations": 3,
    "destination": "cluster",
    "rank": "reach",
    "top_n": 2,
    "max_clusters": 2,
}


def measure_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few live edits as there can be, and no pictures."""

    def few(o: Options) -> InterveneOptions:
        return o.live_as(
            InterveneOptions,
            rankings=("reach",),
            shares=(0.1, 1.0),
            band_shares=(0.1,),
            draws=0,
            edges=1,
            edge_draws=1,
            nodes=False,
            max_images=4,
        )

    monkeypatch.setattr("xaikit.run.live.quick_options", few)
    monkeypatch.setattr("xaikit.run.whole.quick_options", few)
    monkeypatch.setattr("xaikit.run.live.draw", lambda *_: None)
    monkeypatch.setattr("xaikit.stages.circuit.draw", lambda *_: [])


def keys(root: Path) -> dict[str, str]:
    results = orjson.loads((root / MANIFEST).read_bytes())["results"]
    return {name: entry["identity"] for name, entry in results.items()}


@pytest.mark.parametrize("stream", [False, True])
def test_the_root_holds_one_circuit_of_all_layers(tmp_path: Path, stream: bool) -> None:
    tower, source = load_tower("xaikit-demo"), SceneSource(16, 0)
    groups = tmp_path / "groups.csv"
    rows = [f"{name},{'odd' if row % 2 else 'even'}" for row, name in enumerate(source.ids)]
    groups.write_text("\n".join(rows))
    options = Options(**FEW, stream=stream, top_k=20, intervene=False, group=str(groups))
    run_all(tower, source, out_dir=tmp_path, layers=[0, 2], options=options)
    found = GroupCircuits.load(tmp_path / "groups.json")
    assert [(each["name"], len(each["paths"])) for each in found.groups] == [
        ("even", 20),
        ("odd", 20),
    ]
    assert found.layers == [[0, 1], [2, 3]]
    circuit = Circuit.load(tmp_path / "circuit.json")
    assert circuit.layers == [[0, 1], [2, 3]]
    assert len(circuit.paths) == 20
    assert {(edge.layer, edge.next_layer) for edge in circuit.paths} <= {(0, 1), (2, 3)}
    scores = [edge.score for edge in circuit.paths]
    assert scores == sorted(scores, reverse=True)
    data = orjson.loads((tmp_path / "graph.json").read_bytes())
    assert sum(edge["kind"] == "head" for edge in data["edges"]) == 20


def test_the_whole_is_measured_and_made_again_only_where_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_little(monkeypatch)
    tower, source = load_tower("xaikit-demo"), SceneSource(12, 0)
    options = Options(**FEW, top_k=9)
    run_all(tower, source, out_dir=tmp_path, layers=[0, 2], options=options)
    found = Intervention.load(tmp_path / "intervene.json")
    assert found.layers == [[0, 1], [2, 3]]
    assert found.completeness["edges"] == 9
    assert {(c["ranking"], c["mode"]) for c in found.curves if c["metric"] == "cosine"} == {
        ("reach", "remove"),
        ("reach", "keep"),
    }
    before = keys(tmp_path)
    assert set(before) >= {"circuit.json", "intervene.json"}
    run_all(tower, source, out_dir=tmp_path, layers=[0, 2], options=options)
    assert keys(tmp_path) == before
    fewer = Options(**FEW, top_k=5)
    run_all(tower, source, out_dir=tmp_path, layers=[0, 2], options=fewer)
    after = keys(tmp_path)
    assert after["circuit.json"] != before["circuit.json"]
    assert after["intervene.json"] != before["intervene.json"]
    assert len(Circuit.load(tmp_path / "circuit.json").paths) == 5


def test_a_direction_is_of_everything_that_it_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_little(monkeypatch)
    tower, source = load_tower("xaikit-demo", with_text=True), SceneSource(12, 0)
    groups = tmp_path / "groups.csv"
    rows = [f"{name},{'odd' if row % 2 else 'even'}" for row, name in enumerate(source.ids)]
    groups.write_text("\n".join(rows))

    def run(**given: str) -> dict[str, str]:
        options = Options(**FEW, top_k=9, group=str(groups), **given)
        run_all(tower, source, out_dir=tmp_path / "run", layers=[0, 2], options=options)
        roots = {"": tmp_path / "run", "layer ": tmp_path / "run" / "layer_2"}
        return {at + name: key for at, root in roots.items() for name, key in keys(root).items()}

    plain = run()
    toward = run(toward="top red circle", against="top blue circle")
    decided = {"circuit.json", "intervene.json", "groups.json"}
    decided |= {"layer circuit.json", "layer target_causal.json", "layer intervene.json"}
    assert {name for name in plain if plain[name] != toward[name]} == decided
    objective = {"kind": "toward", "toward": "top red circle", "against": "top blue circle"}
    for root in (tmp_path / "run", tmp_path / "run" / "layer_2"):
        circuit, live = (kind.load(root / name) for kind, name in FILES)
        assert circuit.objective == live.objective == objective
        assert {edge.side for edge in circuit.paths} == {"for", "against"}
        assert all((edge.effect > 0) == (edge.side == "for") for edge in circuit.paths)
        assert "toward" in live.metrics
    found = GroupCircuits.load(tmp_path / "run" / "groups.json")
    assert (found.objective, found.metric) == (objective, "toward")
    data = orjson.loads((tmp_path / "run" / "graph.json").read_bytes())
    assert data["graph"]["objective"] == objective
    assert {edge.get("side") for edge in data["edges"]} >= {"for", "against"}
    assert run(toward="top red circle", against="top blue circle") == toward


def test_layers_of_an_earlier_run_do_not_join(tmp_path: Path) -> None:
    tower, source = load_tower("xaikit-demo"), SceneSource(12, 0)
    options = Options(**FEW, intervene=False)
    run_all(tower, source, out_dir=tmp_path, layers=[0, 1], options=options)
    other = Options(**{**FEW, "num_clusters": 5}, intervene=False)
    run_all(tower, source, out_dir=tmp_path, layers=[1, 2], options=other)
    folders = run_folders(tmp_path)
    assert [folder.name for folder in folders] == ["layer_1", "layer_2"]
    sizes = {Features.load(folder / "features.safetensors").num_clusters for folder in folders}
    assert sizes == {5}
    assert Circuit.load(tmp_path / "circuit.json").layers == [[1, 2], [2, 3]]
