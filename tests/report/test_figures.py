"""The table of the field's figures."""

from __future__ import annotations

from typing import Any

from conftest import ORIGIN

from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import Intervention
from xaikit.report.figures import figures_sheet


def curve(mode: str, ablation: str, value: float, **more: Any) -> dict[str, Any]:
    fractions = [value / 2, value, 1.0 if mode == "remove" else 0.0]
    figures = {"cpr": 0.9, "cmd": value / 10, "cpr_log": 0.8, "cmd_log": 0.2}
    return {
        "ranking": "reach",
        "mode": mode,
        "metric": "cosine",
        "ablation": ablation,
        "shares": [0.01, 0.1, 1.0],
        "fractions": fractions,
        **(figures if mode == "keep" else {}),
        **more,
    }


def made(**options: Any) -> Intervention:
    return Intervention(
        provenance=Provenance(origin=ORIGIN, layer=2, next_layer=3),
        full_effect={"cosine": 0.2},
        curves=[
            curve("remove", "mean", 0.6),
            curve("remove", "zero", 0.4),
            curve("keep", "mean", 0.3),
            curve("keep", "zero", 0.5),
        ],
        random=[curve("remove", "mean", 0.02, ranking="random", mean=[], low=[], high=[])],
        effects=[],
        num_images=12,
        full_effects={"mean": {"cosine": 0.2}, "zero": {"cosine": 0.1}},
        **options,
    )


def test_the_table_has_the_spread_over_ablations_and_random_edges() -> None:
    text = figures_sheet(made()).markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "ranking",
        "removed 1%",
        "removed 10%",
        "kept 1%",
        "kept 10%",
        "CPR",
        "CMD",
        "CPR log",
        "CMD log",
    ]
    assert lines[2].startswith("| reach | 0.300 (0.200 to 0.300) | 0.600 (0.400 to 0.600) |")
    assert "0.700 (0.500 to 0.700)" in lines[2]
    assert "| 0.030 (0.030 to 0.050) |" in lines[2]
    assert lines[3].startswith("| random | 0.010 | 0.020 |  |")
    assert "mean ablation (range over mean, zero), layer 2, 12 held-out images" in text


def test_of_a_direction_there_are_falls_and_no_shares_of_next_to_nothing() -> None:
    found = made(objective={"kind": "toward", "toward": "red", "against": "blue"})
    full_effects = {"mean": -0.02, "zero": 0.01}
    found.full_effect["toward"] = -0.02
    found.full_effects = {name: {"toward": full} for name, full in full_effects.items()}
    for each in [*found.curves, *found.random]:
        full = full_effects[each["ablation"]]
        each |= {"metric": "toward", "area_log": 0.5, "area_linear": 0.4}
        each["mean" if each["ranking"] == "random" else "effects"] = [
            value * full for value in each["fractions"]
        ]
    sheet = figures_sheet(found)
    assert sheet.title.startswith(
        "falls of “red” against “blue” (removing all entries raises it by 0.02), mean ablation"
    )
    assert sheet.columns[-4:] == ["area log", "area linear", "keep area log", "keep area linear"]
    removed = ["-0.006 (-0.006 to 0.002)", "-0.012 (-0.012 to 0.004)"]
    kept = ["-0.003 (-0.003 to 0.003)", "-0.006 (-0.006 to 0.005)"]
    areas = ["-0.010 (-0.010 to 0.005)", "-0.008 (-0.008 to 0.004)"]
    assert sheet.rows[0] == ["reach", *removed, *kept, *areas, *areas]
    assert sheet.rows[1][:3] == ["random", "0.000", "0.000"]


def test_layers_together_are_said() -> None:
    assert "3 layers together" in figures_sheet(made(layers=[[0, 1], [1, 2], [2, 3]])).title
