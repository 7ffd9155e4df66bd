"""What the page's scripts are given of edges, curves and baselines."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_definitions as slow
import torch
from conftest import ORIGIN, make_features, make_trace

from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import EdgeEffect, Intervention
from xaikit.report.page import edges as module
from xaikit.report.page.edges import edge_rows, layer_record, pvalue_counts
from xaikit.report.page.faithfulness import baselines, measured
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import packed
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit


@pytest.fixture
def run() -> RunParts:
    """A run of one layer, edges to clusters."""
    logits, labels = slow.random_case(0, B=12, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4, [1, 3])
    made = fit(trace, features, destination="cluster", num_permutations=3)
    parts = LayerParts(
        folder=Path("run"), features=features, fit=made, circuit=circuit(made, top_k=5)
    )
    return RunParts(root=Path("run"), layers=[parts])


def live(**given: Any) -> Intervention:
    known = {"full_effect": {"cosine": 0.2}, "curves": [], "random": [], "effects": []}
    provenance = Provenance(origin=ORIGIN, layer=2, next_layer=3)
    return Intervention(provenance=provenance, **{**known, "num_images": 12, **given})


def effect(edge: Any, value: float, **given: Any) -> EdgeEffect:
    keys = {name: getattr(edge, name) for name in ("cluster_id", "head", "dst_cluster")}
    known = {**keys, "dst_token": None, "support": 3, "edge_effect": 9.0, "edge_pvalue": 0.5}
    known |= {"alignment_gain": 0.125, "alignment_pvalue": None, "live_effect": value}
    return EdgeEffect(**{**known, "live_pvalue": 0.01, "live_qvalue": 0.02, **given})


def test_a_row_says_what_its_edge_is_and_which_test_it_has(run: RunParts) -> None:
    (parts,) = run.layers
    assert parts.circuit is not None
    edge = replace(parts.circuit.paths[0], zscore=2.0, pvalue=0.03, qvalue=0.04)
    none = replace(parts.circuit.paths[1], zscore=0.0, pvalue=1.0, qvalue=1.0)
    parts.circuit.paths = [edge, none]
    first, second = edge_rows(run)
    for name in ("weight", "contrast", "score", "support", "head", "side"):
        assert first[name] == getattr(edge, name)
    assert (first["z"], first["p"], first["q"]) == (2.0, 0.03, 0.04)
    assert (second["z"], second["p"], second["q"]) == (None, None, None)
    assert (first["layer"], first["next"]) == (2, 3)
    assert (first["source"], first["targetId"]) == (f"2.{edge.cluster_id}", f"2.{edge.dst_cluster}")
    entries = parts.fit.num_images * parts.fit.prototypes.shape[1] * parts.fit.tokens**2
    assert first["cover"] == pytest.approx(edge.support / entries)


def test_what_the_live_model_does_without_an_edge_comes_before_what_prototypes_say(
    run: RunParts,
) -> None:
    (parts,) = run.layers
    assert parts.circuit is not None
    edge = parts.circuit.paths[0]
    parts.target = live(effects=[effect(edge, 0.1)])  # type: ignore[assignment]
    parts.intervention = live(effects=[effect(edge, 0.2)])
    row = edge_rows(run)[0]
    assert (row["live"], row["liveP"], row["liveQ"], row["alignment"]) == (0.2, 0.01, 0.02, 0.125)
    run.intervention = live(effects=[effect(edge, 0.3, layer=2), effect(edge, 0.4)])
    assert edge_rows(run)[0]["live"] == 0.3
    assert edge_rows(run)[1]["live"] is None


def test_a_layer_s_tables_are_those_of_each_head(run: RunParts) -> None:
    (parts,) = run.layers
    found = layer_record(parts)
    for name, table in (("weight", parts.fit.prototypes), ("contrast", parts.fit.contrast)):
        assert found[name] == [packed(table[:, head].numpy()) for head in range(table.shape[1])]
    assert (found["layer"], found["next"], found["clusters"]) == (2, 3, 4)
    parts.fit.edge_zscores[:], parts.fit.edge_pvalues[:] = 1.0, 0.97
    parts.fit.edge_pvalues[0, 0, :3] = torch.tensor([0.01, 0.01, 1.0])
    parts.fit.edge_zscores[0, 0, 2] = 0.0
    counts = pvalue_counts(parts)
    assert (counts[0], counts[-1]) == (2, parts.fit.edge_pvalues.numel() - 3)
    assert len(counts) == 20
    assert module.untested(parts).sum() == 1


def test_numbers_are_packed_from_their_least_to_their_largest() -> None:
    found = packed(np.array([[0.0, 5.0, 10.0], [2.5, np.nan, 10.0]]))
    assert (found["lo"], found["hi"], found["shape"]) == (0.0, 10.0, [2, 3])
    data = np.frombuffer(base64.b64decode(found["u8"]), np.uint8)
    assert data.tolist() == [0, 128, 255, 64, 0, 255]


def curve(ablation: str, metric: str, value: float, **more: Any) -> dict[str, Any]:
    named = {"ranking": "reach", "mode": "remove", "metric": metric, "ablation": ablation}
    axis = {"shares": [0.1, 1.0], "edges": [3, 9], "fractions": [value, 1.0]}
    return {**named, **axis, "effects": [value, 1.0], "area_log": value, **more}


def test_each_ablation_has_its_own_curves_and_full_effect(run: RunParts) -> None:
    own = live(
        curves=[
            curve("mean", "cosine", 0.5),
            curve("mean", "margin", 0.4),
            curve("zero", "cosine", 0.3),
        ],
        random=[curve("mean", "cosine", 0.1, mean=[0.02, 0.2], low=[0.0, 0.2], high=[0.04, 0.2])],
        full_effects={"zero": {"cosine": 0.7}},
        objective={"kind": "margin"},
        chance={"pvalue": 0.5},
    )
    run.layers[0].intervention = own
    one, other = measured(run)
    assert (one["title"], other["title"]) == ("layer 2 → 3", "layer 2 → 3, zero ablation")
    assert [each["fractions"][0] for each in one["curves"]] == [0.5, 0.4]
    assert [each["fractions"][0] for each in other["curves"]] == [0.3]
    assert (one["full"], other["full"]) == ({"cosine": 0.2}, {"cosine": 0.7})
    # What the run was judged by comes first.
    assert list(one["metrics"]) == ["margin", "cosine"]
    (band,) = one["random"]
    assert band["low"] == pytest.approx([0.0, 1.0])
    assert band["high"] == pytest.approx([0.2, 1.0])
    assert (one["chance"], other["chance"]) == ({"pvalue": 0.5}, None)


def test_baselines_are_of_the_images_that_were_held_out_where_there_were_any(
    run: RunParts,
) -> None:
    made = run.layers[0].fit
    names = ("r2", "r2_mean", "r2_position", "r2_position_cluster")
    made.controls = {"shuffled_added": 0.01}
    made.heldout_r2 = dict(zip(names, (0.4, 0.1, 0.2, 0.35), strict=True))
    (found,) = baselines(run)
    assert dict(found["rows"]) == {
        "mean of all rows": 0.1,
        "position only": 0.2,
        "position and cluster": 0.35,
        "cluster prototypes alone": 0.4,
    }
    assert dict(found["added"])["added by clusters"] == pytest.approx(0.15)
    assert dict(found["added"])["added by clusters, images shuffled"] == 0.01
    assert found["where"] == "held-out images"
    made.heldout_r2, made.r2 = {}, 0.75
    (found,) = baselines(run)
    assert dict(found["rows"])["cluster prototypes alone"] == 0.75
    assert found["where"] == "the same images"
