"""The tables of a run: whose they are, in which order, and what is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ORIGIN, make_features, make_trace

from xaikit.artifacts.file_names import RUN
from xaikit.artifacts.files import FORMAT_VERSION, write_json
from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import (
    Causal,
    Circuit,
    ClusterEffect,
    EdgeEffect,
    Intervention,
    TargetCausal,
)
from xaikit.errors import UsageError, XaikitError
from xaikit.stages import export as module
from xaikit.stages.export import export_run, write_csv, write_parquet
from xaikit.stages.fit import fit

CLUSTER = ClusterEffect(
    cluster_id=1,
    support=5,
    ablation_effect=0.5,
    injection_effect=0.25,
    ablation_pvalue=0.5,
    injection_pvalue=None,
)
EDGE = EdgeEffect(
    cluster_id=1,
    head=0,
    dst_token=2,
    support=5,
    edge_effect=0.5,
    edge_pvalue=0.5,
    alignment_gain=0.1,
    alignment_pvalue=0.5,
)

LIVE = {"cluster_id": 1, "support": 5, "ablation_effect": 0.5, "injection_effect": 0.25}
LIVE |= {"live_ablation": 0.1, "live_injection": None}


def place(layer: int) -> Provenance:
    return Provenance(origin=ORIGIN, layer=layer, next_layer=layer + 1)


def causal_of(layer: int) -> Causal:
    given = {"max_clusters": 1, "num_permutations": 1, "seed": 0}
    return Causal(provenance=place(layer), effects=[CLUSTER], **given)


def test_layers_are_one_below_the_other_lowest_first_whatever_else_lies_there(tmp_path: Path):
    for layer in (10, 2):
        (tmp_path / f"layer_{layer}").mkdir()
        causal_of(layer).save(tmp_path / f"layer_{layer}" / "causal.json")
    (tmp_path / "layer_old").mkdir()
    causal_of(7).save(tmp_path / "layer_old" / "causal.json")
    found = export_run(tmp_path)["cluster_effects"]
    assert (found["layer"], found["next_layer"]) == ([2, 10], [3, 11])
    # Of the run that was last made there, where one is recorded.
    record = {"stage": "run", "format_version": FORMAT_VERSION, "pairs": [[10, 11]], "options": {}}
    write_json(tmp_path / RUN, record | {"folders": ["layer_10"]})
    assert export_run(tmp_path)["cluster_effects"]["layer"] == [10]


def test_tables_are_named_after_what_they_are_of_and_empty_ones_left_out(tmp_path: Path):
    """Of one layer, and of all of them together where there are several."""
    causal_of(2).save(tmp_path / "causal.json")
    given = {"top_n": 1, "num_permutations": 1, "seed": 0}
    TargetCausal(provenance=place(2), effects=[EDGE], **given).save(tmp_path / "target_causal.json")
    Circuit(provenance=place(2), top_k=1, paths=[]).save(tmp_path / "circuit.json")
    Intervention(
        provenance=place(2),
        full_effect={"cosine": 1.0},
        curves=[],
        random=[],
        effects=[EDGE],
        clusters=[LIVE],
        agreement={"clusters": 1, "ablation": None, "injection": None},
    ).save(tmp_path / "intervene.json")
    names = {"cluster_effects", "edge_effects", "live_effects", "live_cluster_effects"}
    assert set(export_run(tmp_path)) == names
    (tmp_path / "layer_2").mkdir()
    causal_of(2).save(tmp_path / "layer_2" / "causal.json")
    assert set(export_run(tmp_path)) == {"cluster_effects", *(f"model_{name}" for name in names)}


def test_what_an_earlier_run_left_at_the_root_is_not_taken_for_that_of_all_layers(tmp_path: Path):
    trace = make_trace(torch.rand(4, 1, 5, 5))
    made = fit(trace, make_features(trace, torch.arange(20).view(4, 5) % 2, 2), num_permutations=1)
    (tmp_path / "layer_2").mkdir()
    made.save(tmp_path / "layer_2" / "fit.safetensors")
    parents = {f"fit_{made.layer}": made.identity}
    for left, names in ((parents, {"model_cluster_effects", "edges"}), ({"fit": "x"}, {"edges"})):
        causal = causal_of(2)
        causal.provenance.parents.update(left)
        causal.save(tmp_path / "causal.json")
        assert set(export_run(tmp_path)) == names


def test_what_was_made_of_an_earlier_fit_in_the_folder_is_left_out(tmp_path: Path):
    trace = make_trace(torch.rand(4, 1, 5, 5))
    made = fit(trace, make_features(trace, torch.arange(20).view(4, 5) % 2, 2), num_permutations=1)
    made.save(tmp_path / "fit.safetensors")
    for of, there in ((made.identity, True), ("an earlier fit", False)):
        causal = causal_of(2)
        causal.provenance.parents["fit"] = of
        causal.save(tmp_path / "causal.json")
        assert ("cluster_effects" in export_run(tmp_path)) == there


def test_a_column_that_a_layer_lacks_is_empty_there():
    rows, more = {"a": [1, 2]}, {"a": [3], "b": [4]}
    assert module._joined([rows, more]) == {"a": [1, 2, 3], "b": [None, None, 4]}
    assert module._joined([more, rows]) == {"a": [3, 1, 2], "b": [4, None, None]}
    arrays = module._joined([{"a": np.arange(2), "b": np.arange(2)}, {"a": np.arange(1)}])
    assert isinstance(arrays["a"], np.ndarray)
    assert (arrays["a"].tolist(), arrays["b"]) == ([0, 1, 0], [0, 1, None])


def test_parquet_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(XaikitError, match=r"pip install 'xaikit\[parquet\]'"):
        write_parquet({"a": {"b": [1]}}, tmp_path)
    assert write_csv({"a": {"b": [1, None]}}, tmp_path) == [tmp_path / "a.csv"]
    assert (tmp_path / "a.csv").read_text().split() == ["b", "1", '""']


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="holds no run; expected a folder that `xaikit run-all`"):
        export_run(tmp_path)
