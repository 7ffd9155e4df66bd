"""The summary of a run: each figure is of its own layer, edge and stage."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.made_parts import made_parts
from rich.console import Console

from xaikit.cli.run_summary import run_fields, run_lines
from xaikit.run.layer import LayerRun
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


def said(runs: list[LayerRun]) -> str:
    console = Console(width=150, record=True, file=io.StringIO(), markup=False)
    for line in run_lines(runs, Path("out"), 61.0):
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
    lines = [line for line in said([run]).splitlines() if "place" in line]
    for at, line in enumerate(lines):
        assert line.rstrip().endswith(f"{at}.125  {'0.250' if testable else 'not testable'}")
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
