"""The summary of a run: each figure is of its own layer, edge and stage."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ORIGIN
from report.made_parts import made_parts
from rich.console import Console

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import EdgeEffect, Intervention
from xaikit.cli.run_summary import run_fields, run_lines
from xaikit.report.summaries import added
from xaikit.run.layer import LayerRun
from xaikit.run.whole import WholeRun
from xaikit.stages.causal import causal
from xaikit.stages.target_causal import target_causal


def made(folder: str = "out", **given: Any) -> LayerRun:
    parts = made_parts()
    assert parts.circuit is not None
    assert parts.trace is not None
    return LayerRun(
        folder=Path(folder),
        features=parts.features,
        fit=parts.fit,
        circuit=parts.circuit,
        causal=causal(parts.features, parts.fit, num_permutations=3),
        target_causal=target_causal(
            parts.trace, parts.features, parts.fit, parts.circuit, num_permutations=3
        ),
        **given,
    )


def said(runs: list[LayerRun], whole: WholeRun | None = None) -> str:
    console = Console(width=150, record=True, file=io.StringIO(), markup=False)
    for line in run_lines(runs, Path("out"), 61.0, whole=whole):
        console.print(line, soft_wrap=isinstance(line, str))
    return console.export_text()


def test_the_recipe_says_how_much_is_held_out_and_the_end_where_everything_is() -> None:
    run = made(seconds={"fit": 2.5, "circuit": 0.5}, reused=["trace", "cluster"])
    text = said([run])
    assert "recipe evidence: kmeans clusters, prefix mixed, ranked by weight" in text
    assert "edges to tokens, 33% of the images held out" in text
    assert "12 images × 5 tokens, 3 of 4 clusters used" in text
    assert "fit 2.5 s, circuit 0.5 s · unchanged: trace, cluster" in text
    assert "everything is in out/ (pictures: heatmaps/), 61.0 s in all" in text
    run.overview = Path("out/overview.png")
    assert "(pictures: heatmaps/ and overview.png)" in said([run])
    run.folder = Path("out/layer_2")
    assert "everything is in out/layer_2/" in said([run])
    assert "everything is in out/ (" in said([run, run])


@pytest.mark.parametrize("testable", [True, False])
def test_an_edge_has_its_own_effect_and_no_p_value_where_none_is_given(testable: bool) -> None:
    run = made()
    edges = run.circuit.paths[:2]
    run.circuit.paths = [replace(edge, dst_name=f"place {at}") for at, edge in enumerate(edges)]
    effects = {effect.key: effect for effect in run.target_causal.effects}
    known = [
        replace(effects[edge.key], edge_effect=at + 0.125, edge_pvalue=0.25, testable=testable)
        for at, edge in enumerate(edges)
    ]
    run.target_causal.effects = known[::-1]
    # Columns are as wide as their names.
    printed = [" ".join(line.split()) for line in said([run]).splitlines()]
    assert any(line.endswith("support effect p of effect") for line in printed)
    lines = [line for line in printed if "place" in line]
    assert len(lines) == 2
    for at, line in enumerate(lines):
        assert line.endswith(f" {at}.125 {'0.250' if testable else 'not testable'}")
    run.target_causal.effects = known[:1]
    assert "0.125" not in next(line for line in said([run]).splitlines() if "place 1" in line)


def test_fields_are_of_each_layer() -> None:
    one, other = made("out/layer_2"), made("out/layer_5", seconds={"fit": 1.0}, reused=["trace"])
    info = other.info
    info.images, info.skipped = info.images[:7], ["a", "b"]
    other.features.recorded = info.recorded()
    other.features.cluster_sizes[1] = 0
    found = run_fields([one, other], Path("out"), 3.0)
    first, second = found["layers"]
    assert (first["folder"], second["folder"]) == ("out/layer_2", "out/layer_5")
    assert (first["images"], second["images"]) == (12, 7)
    assert (first["skipped"], second["skipped"]) == (0, info.skipped_count)
    assert (first["clusters_used"], second["clusters_used"]) == (3, 2)
    assert (first["reused"], second["reused"]) == ([], ["trace"])
    assert found["objective"]["kind"] == "embedding"
    assert "together" not in found


def live(edge: Edge) -> Intervention:
    """Of one edge, whose effects in the model and in the prototypes are told apart."""
    names = ("cluster_id", "head", "dst_token", "dst_cluster", "support")
    given: dict[str, Any] = {name: getattr(edge, name) for name in names}
    effect = EdgeEffect(
        **given,
        edge_effect=0.75,
        edge_pvalue=0.5,
        alignment_gain=None,
        alignment_pvalue=None,
        live_effect=0.125,
    )
    return Intervention(
        provenance=Provenance(origin=ORIGIN, layer=2, next_layer=3),
        full_effect={"cosine": 0.2},
        curves=[],
        random=[],
        effects=[effect],
        num_images=7,
    )


JUDGED = "no removal curve was measured (7 held-out images)"


def test_what_the_live_model_says_is_of_each_edge_and_of_each_layer() -> None:
    run = made()
    run.features.kinds = ["class token"]
    run.circuit.stability = {
        "resamples": 20,
        "jaccard": 0.75,
        "jaccard_sd": 0.05,
        "jaccard_chance": 0.1,
    }
    run.circuit.paths = [replace(run.circuit.paths[0], dst_name="place"), *run.circuit.paths[1:]]
    run.intervention = live(run.circuit.paths[0])
    text = said([run])
    (line,) = (line for line in text.splitlines() if " place " in line)
    assert line.rstrip().endswith(" 1.2e-01")
    assert "4 clusters used; by position: 3 the class token" in text
    assert "20 resamples of the images: Jaccard 0.75" in text
    assert JUDGED in text
    (layer,) = run_fields([run], Path("out"), 3.0)["layers"]
    assert layer["intervene"]["images"] == 7
    assert layer["stability"]["resamples"] == 20
    assert layer["r2_added"] == added(run.fit)


def test_what_layers_do_together_is_told_beside_each_of_them() -> None:
    runs = [made("out/layer_2"), made("out/layer_5")]
    circuit = made().circuit
    circuit.layers, circuit.objective = [[2, 3], [5, 6]], {"kind": "margin"}
    whole = WholeRun(circuit=circuit, intervention=live(circuit.paths[0]))
    text = said(runs, whole)
    assert "2 layers together" in text
    assert "first 5 of 5 edges by weight" in text.split("2 layers together")[1]
    assert JUDGED in text.split("2 layers together")[1]
    runs[0].circuit.objective = {"kind": "margin"}
    found = run_fields(runs, Path("out"), 3.0, whole=whole)
    assert found["together"]["images"] == 7
    assert found["objective"] == {"kind": "margin"}
    circuit.paths, whole.intervention = [], None
    assert said(runs, whole).split("2 layers together")[1].count("the circuit is empty") == 1
