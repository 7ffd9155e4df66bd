"""The first screen in words: each figure is that of the run, and no sentence says the opposite."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Some
from typing import Any

import pytest
from report.made_parts import made_parts, made_run

from xaikit.report.page.answer import by_layer, found
from xaikit.report.page.parts import LayerParts


@pytest.fixture
def parts() -> LayerParts:
    layer = made_parts()
    layer.fit.heldout_r2 = {
        "r2": 0.1,
        "r2_mean": 0.1,
        "r2_position": 0.2,
        "r2_position_cluster": 0.45,
    }
    layer.fit.controls = {"shuffled_added": -0.0004}
    return layer


def edge(parts: LayerParts, **given: Any) -> Any:
    assert parts.circuit is not None
    known = {"cluster_id": 1, "head": 1, "dst_token": 3, "dst_name": "patch (0, 2)"}
    tested = {"zscore": 2.0, "pvalue": 0.04, "contrast": 1.0}
    return replace(parts.circuit.paths[0], **{**known, **tested, **given})


CARD = {"id": "2.1", "cluster": 1, "kind": "", "words": {"word": "sky", "holds": True}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "attends more to patch (0, 2) than its places alone explain (layer 3, head 1)"),
        ({"zscore": -2.0, "contrast": -1.0}, "attends less to patch (0, 2) than its places alone"),
        ({"zscore": -2.0}, "less to patch (0, 2) than its places alone explain, though more than"),
        ({"zscore": 0.0, "pvalue": 1.0}, "more to patch (0, 2) than other tokens do (layer 3"),
        ({"zscore": None, "contrast": -1.0}, "less to patch (0, 2) than other tokens do (layer 3"),
        ({"side": "against", "effect": -0.1}, "(layer 3, head 1, against)"),
        ({"dst_name": "patch (0, 0), sink"}, "more to patch (0, 0) (a sink) than its places"),
        ({"dst_token": None, "dst_cluster": 1}, "attends more to itself than"),
        ({"dst_token": None, "dst_cluster": 2}, "attends more to cluster 2 than"),
    ],
)
def test_an_edge_is_told_by_its_test_where_it_has_one_and_by_its_contrast_else(
    parts: LayerParts, given: dict[str, Any], said: str
) -> None:
    assert parts.circuit is not None
    parts.circuit.paths = [edge(parts, **given)]
    first = found(made_run(parts), {"2.1": CARD})[0]
    assert first.startswith("The first edges, ranked by `weight`")
    assert "cluster 1 (“sky”) attends" in first
    assert said in first


def test_a_word_that_did_not_hold_names_no_cluster(parts: LayerParts) -> None:
    assert parts.circuit is not None
    parts.circuit.paths = [edge(parts)]
    doubtful = {**CARD, "words": {"word": "sky", "holds": False}}
    assert "sky" not in found(made_run(parts), {"2.1": doubtful})[0]


def test_what_clusters_explain_is_of_the_held_out_images_where_there_are_some(
    parts: LayerParts,
) -> None:
    said = " ".join(found(made_run(parts), {}))
    assert "explains 25.0% of the variance" in said
    assert "on held-out images (clusters of other images: 0.0%)" in said
    parts.fit.heldout_r2 = {}
    parts.fit.r2_position, parts.fit.r2_position_cluster = 0.5, 0.6
    assert "explains 10.0% of" in " ".join(found(made_run(parts), {}))
    assert "on the images they were learnt on" in " ".join(found(made_run(parts), {}))


def test_edges_that_differ_are_counted_and_edges_without_a_test_are_not(parts: LayerParts) -> None:
    assert parts.circuit is not None
    parts.circuit = replace(parts.circuit, significant=7, tested=1200)
    assert "7 of 1,200 possible edges differ" in found(made_run(parts), {})[-1]
    assert by_layer(made_run(parts, parts))[0]["edges"] == "7 of 1,200"
    parts.circuit = replace(parts.circuit, significant=None)
    assert found(made_run(parts), {})[-1].startswith("No edge was tested: guided clusters have")
    assert by_layer(made_run(parts, parts))[0]["edges"] == "none tested"


def test_of_several_layers_the_best_and_the_worst_are_named(parts: LayerParts) -> None:
    other, place = made_parts(), {"layer": 5, "next_layer": 6}
    other.fit.provenance = replace(other.fit.provenance, **place)
    other.fit.heldout_r2 = {**parts.fit.heldout_r2, "r2_position_cluster": 0.21}
    most, least = found(made_run(parts, other), {})[-2:]
    assert most.startswith("The clusters of layer 2 explain most:")
    assert "25.0%" in most
    assert least.startswith("The clusters of layer 5 explain least:")
    assert "1.0%" in least
    rows = by_layer(made_run(parts, other))
    assert [row["layer"] for row in rows] == ["2 → 3", "5 → 6"]
    assert [row["added"] for row in rows] == ["+25.0%", "+1.0%"]
    assert {row["effect"] for row in rows} == {"not asked"}


def curve(ranking: str, at: float, mode: str = "remove") -> dict[str, Any]:
    named = {"ranking": ranking, "mode": mode, "metric": "cosine", "ablation": "mean"}
    return {**named, "shares": [0.1, 1.0], "fractions": [at, 1.0], "area_log": at}


@pytest.mark.parametrize(("pvalue", "better"), [(0.05, True), (0.051, False)])
def test_what_the_running_model_does_is_told_in_shares_of_the_full_effect(
    parts: LayerParts, pvalue: float, better: bool
) -> None:
    live: Any = Some(
        objective={"kind": "embedding"},
        # The best at the share that is quoted has not the largest area.
        curves=[
            {**curve("reach", 0.3), "area_log": 0.9},
            curve("weight", 0.5),
            curve("weight", 0.9, "keep"),
        ],
        random=[
            {**curve("random", 0.04), "mean": [0.01, 0.2], "low": [0, 0.2], "high": [0.1, 0.2]}
        ],
        full_effect={"cosine": 0.2},
        full_of=lambda _record: 0.2,
        ablation="mean",
        heldout=True,
        num_images=128,
        chance={"best": "weight", "effect": 0.1, "random_mean": 0.008, "pvalue": pvalue},
    )
    parts.intervention = live
    said = next(each for each in found(made_run(parts), {}) if "running model" in each)
    assert "attention of layer 3: putting the average in place of the 10% of entries" in said
    assert "that `weight` puts first does 50% of what doing so everywhere does" in said
    assert "(1 − cos = 0.2, 128 held-out images); random entries do 4.0% (p = 0.05" in said
    assert said.endswith("That is no better than chance.") != better
    cells = by_layer(made_run(parts, parts))[0]
    assert (cells["ranking"], cells["effect"]) == ("weight", "50%")
    assert (cells["random"], cells["full"]) == ("4.0%", "0.2")


def test_clusters_that_predict_worse_than_position_are_not_said_to_explain(
    parts: LayerParts,
) -> None:
    parts.fit.heldout_r2["r2_position_cluster"] = 0.191
    parts.fit.controls = {"shuffled_added": -0.0172}
    said = " ".join(found(made_run(parts), {}))
    assert "worse than its position alone does (−0.9% of their variance)" in said
    assert "(clusters of other images: −1.7%)" in said
