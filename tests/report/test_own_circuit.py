"""What a run adds to the page of one image."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.edges import Edge
from xaikit.report.page.own_circuit import OwnCircuit


def edge(layer: int, **given: Any) -> Edge:
    known = {"cluster_id": 1, "head": 0, "dst_token": None, "dst_cluster": 2, "weight": 0.5}
    known |= {"support": 3, "layer": layer, "next_layer": layer + 1, "dst_name": "cluster 2"}
    return Edge(**{**known, **given})


def curve(ranking: str, at: float, mode: str = "remove", **more: Any) -> dict[str, Any]:
    named = {"ranking": ranking, "mode": mode, "metric": "cosine", "shares": [0.1, 1.0]}
    return {**named, "fractions": [at, 1.0], "area_log": 0.5, **more}


def drawn(at: float, mode: str = "remove") -> dict[str, Any]:
    ends = {"mean": [at / 2, 0.5], "low": [0.0, 0.5], "high": [at, 0.5], "draws": 9}
    return curve("random", at, mode, **ends)


@pytest.fixture
def own() -> OwnCircuit:
    """Two layers, of whose clusters some have cards."""
    live = {"live_effect": 0.25, "edge_effect": 9.0, "live_qvalue": 0.03, "live_pvalue": 0.01}
    found: Any = Some(
        objective={"kind": "embedding"},
        layers=[[2, 3], [4, 5]],
        labels=[[1, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 3]],
        edges=[edge(2), edge(4, dst_token=5, dst_cluster=None, dst_name="patch (0, 4)")],
        common_edges=[edge(2), edge(4)],
        effects=[Some(layer=2, key=(1, 0, 2), **live)],
        curves=[curve("own", 0.6), curve("common", 0.4), curve("own", 0.9, "keep")],
        random=[drawn(0.9, "keep"), drawn(0.05)],
        full_effect={"cosine": 0.5},
        overlap=[{"share": 0.01, "shared": 0.9}, {"share": 0.1, "shared": 0.7}],
        tested=["a", "b", "c"],
    )
    cards = {
        "2.1": {
            "id": "2.1",
            "cluster": 1,
            "kind": "",
            "words": {"word": "sky", "holds": True},
            "central": [{"src": at} for at in range(6)],
            "random": [],
        },
        "2.2": {
            "id": "2.2",
            "cluster": 2,
            "kind": "class token",
            "words": None,
            "central": [],
            "random": [{"src": "r"}],
        },
    }
    found.full_of = lambda record: found.full_effect[record["metric"]]
    run: Any = Some(layers=[0, 1])
    return OwnCircuit(found=found, run=run, cards=cards)


def test_an_image_s_clusters_come_largest_first_with_their_names_and_members(own) -> None:
    first, second = own.data()["layers"]
    assert (first["layer"], first["next"], second["layer"]) == (2, 3, 4)
    assert [(each["cluster"], each["count"]) for each in first["clusters"]] == [
        (1, 3),
        (2, 2),
        (0, 1),
    ]
    assert [each["name"] for each in first["clusters"]] == [
        "cluster 2.1 (“sky”)",
        "the class token (2.2)",
        "cluster 0",
    ]
    assert [each["src"] for each in first["clusters"][0]["tiles"]] == [0, 1, 2, 3]
    assert [each["src"] for each in first["clusters"][1]["tiles"]] == ["r"]
    assert first["clusters"][2]["tiles"] == []


def test_an_edge_has_its_own_effect_ends_and_whether_the_other_circuit_has_it_too(own) -> None:
    data = own.data()
    one, other = data["own"]
    assert (one["queries"], one["keys"]) == ("cluster 2.1 (“sky”)", "the class token (2.2)")
    assert (one["live"], one["liveQ"], one["both"]) == (0.25, 0.03, True)
    assert (other["queries"], other["keys"], other["token"]) == ("cluster 1", "patch (0, 4)", 5)
    assert (other["live"], other["both"]) == (None, False)
    # The same three numbers in another layer are another edge.
    assert [each["both"] for each in data["common"]] == [True, False]
    own.found.edges = [edge(4)]
    own.found.common_edges = [edge(2)]
    assert [each["both"] for each in own.data()["own"]] == [False]


def test_effects_of_a_single_layer_need_not_name_it(own) -> None:
    own.found.effects[0].layer = None
    assert own.data()["own"][0]["live"] == 0.25
    own.found.effects[0].layer = 4
    assert own.data()["own"][0]["live"] is None


@pytest.mark.parametrize(
    ("common", "said"),
    [
        (0.4, "So some of what matters for this image is not in the common circuit."),
        (0.585, "So the edges that matter for this image are, by this measure, the common ones."),
        (0.7, "So ranking on this image alone finds less of what matters than the run's images"),
    ],
)
def test_what_was_found_of_an_image_is_said_with_its_figures(own, common, said) -> None:
    own.found.curves[1] = curve("common", common)
    first, second, third = own.sentences()
    assert first.startswith("On 3 views of the image that chose nothing")
    assert "the 10% of attention entries that its own circuit puts first does 60% of what" in first
    assert "(1 − cos = 0.5)" in first
    assert first.endswith(f"common circuit {common:.0%}, with random edges 5%.")
    assert second.startswith(said)
    assert third == "The two circuits share 70% of those entries."


def test_an_objective_s_name_is_text(own) -> None:
    own.found.objective = {"kind": "toward", "toward": "red\x1b", "against": ""}
    own.found.curves = [
        curve(name, 0.5, metric="toward", effects=[0.25, 0.5]) for name in ("own", "common")
    ]
    own.found.random, own.found.full_effect = [], {"toward": 0.5}
    assert "lowers “red\\x1b” by 0.25" in own.sentences()[0]
