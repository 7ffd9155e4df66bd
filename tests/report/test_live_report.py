"""What is said of an intervention."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from conftest import ORIGIN

from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import EdgeEffect, Intervention
from xaikit.report.live import (
    at_share,
    edge_table,
    edges_sentence,
    intervene_fields,
    intervene_lines,
    verdict,
)
from xaikit.report.page.own_circuit import OwnCircuit


def curve(name: str, fractions: list[float], area: float) -> dict[str, Any]:
    return {
        "ranking": name,
        "mode": "remove",
        "metric": "cosine",
        "shares": [0.01, 0.1, 1.0],
        "fractions": fractions,
        "effects": [value * 0.2 for value in fractions],
        "area_log": area,
        "area_linear": area,
    }


CHANCE = {
    "share": 0.1,
    "best": "good",
    "effect": 0.09,
    "rankings": 2,
    "draws": 40,
    "random_mean": 0.002,
    "random_best": 0.02,
    "pvalue": 0.024,
}


def made(best: list[float], **options: Any) -> Intervention:
    band = curve("random", [0.001, 0.01, 1.0], 0.1)
    band |= {"mean": [0.0002, 0.002, 0.2], "draws": 20}
    band |= {"low": [0.0, 0.001, 0.2], "high": [0.001, 0.02, 0.2]}
    return Intervention(
        provenance=Provenance(origin=ORIGIN, layer=2, next_layer=3),
        full_effect={"cosine": 0.2, "kl": 0.5, "margin": 0.3, "accuracy": 0.25},
        curves=[curve("poor", [0.0, 0.0, 1.0], 0.2), curve("good", best, 0.6)],
        random=[band],
        num_images=12,
        classifier="classifier head",
        **{"effects": [], "chance": CHANCE, **options},
    )


def test_values_between_points_are_linear_in_the_logarithm() -> None:
    found = curve("made up", [0.2, 0.6, 1.0], 0.5)
    assert at_share(found, 0.1) == pytest.approx(0.6)
    assert at_share(found, 0.1**1.5) == pytest.approx(0.4)
    assert at_share(found, 0.005) == pytest.approx(0.1)
    assert at_share(found, 1.0) == 1.0


def test_the_verdict_names_the_best_ranking_and_chance() -> None:
    text = verdict(made([0.1, 0.45, 1.0]))
    assert "the 10% of logit entries that `good` puts first does 45%" in text
    assert "12 held-out images" in text
    assert "random orders do 1.0% on average" in text
    assert "the best of 2 random orders as much with p = 0.024" in text
    assert "chance" not in text
    assert "no better than chance" in verdict(
        made([0.1, 0.45, 1.0], chance=CHANCE | {"pvalue": 0.051})
    )


def test_the_verdict_is_of_the_ranking_that_was_compared_with_chance() -> None:
    """And not of the one with the largest area, which may be another."""
    text = verdict(made([0.1, 0.45, 1.0], chance=CHANCE | {"best": "poor", "effect": 0.1}))
    assert "`poor` puts first does 50%" in text


def test_without_a_holdout_images_are_not_called_held_out() -> None:
    assert "12 images" in verdict(made([0.1, 0.45, 1.0], heldout=False))


def test_the_lines_hold_the_table_and_the_class_metrics() -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=StringIO())
    for line in intervene_lines(made([0.1, 0.45, 1.0])):
        console.print(line)
    text = console.export_text()
    assert text.index("good") < text.index("poor") < text.index("random")
    assert "KL 0.5 nats, margin -0.3, accuracy -25.0%" in text
    assert "keep area" not in text


def test_edges_that_cannot_be_tested_say_so_beside_their_live_effect() -> None:
    from rich.console import Console

    edge = EdgeEffect(
        cluster_id=15,
        head=2,
        dst_token=7,
        support=12,
        edge_effect=0.5,
        edge_pvalue=1.0,
        alignment_gain=None,
        alignment_pvalue=None,
        testable=False,
        dst_name="patch (1, 2)",
        live_effect=0.0123,
        live_qvalue=0.04,
    )
    console = Console(width=120, record=True, file=StringIO())
    for line in edge_table(made([0.1, 0.45, 1.0], effects=[edge])):
        console.print(line)
    row = console.export_text().splitlines()[-1].split()
    assert row == ["15", "2", "patch", "(1,", "2)", "not", "testable", "1.2e-02", "0.040"]
    assert edge_table(made([0.1, 0.45, 1.0])) == []


def test_a_direction_is_told_in_falls_and_not_in_shares_of_next_to_nothing() -> None:
    from rich.console import Console

    curves = [
        curve("attribution", [-5.0, -10.0, 1.0], 0.5) | {"side": "for"},
        curve("attribution", [3.0, 6.0, 1.0], 0.6) | {"side": "against"},
    ]
    for each in curves:
        each |= {"metric": "toward", "effects": [v * -0.02 for v in each["fractions"]]}
    found = made(
        [0.0, 0.0, 1.0],
        objective={"kind": "toward", "toward": "red", "against": "blue"},
        chance=CHANCE | {"best": "attribution", "side": "for", "effect": 0.2},
        completeness={
            "edges": 3,
            "share": 0.01,
            "removed": -4.0,
            "kept": 0.5,
            "faithfulness": 0.5,
            "random_mean": 0.1,
            "pvalue": 0.2,
        },
    )
    found.curves, found.full_effect["toward"] = curves, -0.02
    console = Console(width=120, record=True, file=StringIO())
    for line in intervene_lines(found):
        console.print(line)
    text = console.export_text()
    sentences = " ".join(text.split())
    assert "fall of “red” against “blue”, mean ablation" in text
    cells = [line.split() for line in text.splitlines() if line.startswith("attribution")]
    assert cells[0][:4] == ["attribution", "for", "0.100", "0.200"]
    assert cells[1][:4] == ["attribution", "against", "-0.060", "-0.120"]
    assert "a attribution for b attribution against" in sentences
    whole = "removing them lowers “red” against “blue” by 0.08 (random edges raise it by 0.002), "
    assert whole + "keeping only them raises it by 0.01" in sentences
    assert "`attribution for` puts first lowers “red” against “blue” by 0.2" in sentences
    assert "(removing all of them raises it by 0.02, 12 held-out images)" in sentences
    bare = "removing all logit entries raises “red” against “blue” by 0.02 (12 held-out images)"
    assert verdict(replace(found, chance={})) == bare
    assert "of what removing all" not in sentences


def test_one_image_is_told_in_what_lowers_its_direction_and_what_raises_it() -> None:
    from types import SimpleNamespace

    def record(name: str, at: float) -> dict[str, Any]:
        return curve(name, [0.0, 0.0, 1.0], 0.1) | {"metric": "toward", "effects": [0.0, at, 0.1]}

    drawn = record("random", -0.001)
    found = SimpleNamespace(
        objective={"kind": "toward", "toward": "red", "against": ""},
        curves=[record("own", 0.25), record("common", -0.125)],
        random=[drawn | {"mean": drawn["effects"]}],
        full_effect={"toward": -0.5},
        full_of=lambda record: -0.5,
        tested=["a", "b"],
        overlap=[],
    )
    (said,) = OwnCircuit(found=found, run=None).sentences()  # type: ignore[arg-type]
    assert "its own circuit puts first lowers “red” by 0.25, doing so everywhere raises it" in said
    assert "the run's common circuit raise it by 0.125, random ones raise it by 0.001." in said


def test_the_fields_are_numbers_of_the_curves() -> None:
    fields = intervene_fields(made([0.1, 0.45, 1.0]))
    assert fields["rankings"]["good"] == {
        "area_log": 0.6,
        "area_linear": 0.6,
        "at_0.01": 0.1,
        "at_0.1": pytest.approx(0.45),
    }
    assert fields["random"] == {"area_log": 0.1, "area_linear": 0.1}


def lines_of(found: Intervention) -> list[str]:
    from rich.console import Console

    console = Console(width=200, record=True, file=StringIO())
    for line in intervene_lines(found):
        console.print(line)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def effect(at: int, **given: Any) -> EdgeEffect:
    known = {"cluster_id": at, "head": 1, "dst_token": None, "dst_cluster": 2, "support": 3}
    known |= {"edge_effect": 0.5, "edge_pvalue": 0.01, "alignment_gain": None}
    return EdgeEffect(**{**known, "alignment_pvalue": None, "dst_name": "cluster 2", **given})


def test_only_curves_of_the_run_s_own_ablation_are_ranked_and_judged() -> None:
    found = made([0.1, 0.45, 1.0])
    other = curve("other", [0.9, 0.95, 1.0], 0.99) | {"ablation": "zero"}
    keep = curve("good", [0.9, 0.2, 0.0], 0.375) | {"mode": "keep", "ablation": "mean"}
    band = found.random[0] | {"mode": "keep", "area_log": 0.875}
    found.curves += [other, keep, keep | {"ablation": "zero", "area_log": 0.125}]
    found.random.append(band)
    assert set(intervene_fields(found)["rankings"]) == {"good", "poor"}
    rows = {line.split()[0]: line.split()[1:] for line in lines_of(found) if "." in line}
    # Shares at 1 and 10 %, both areas of removal, and the logarithmic one of keeping.
    assert rows["good"] == ["0.100", "0.450", "0.600", "0.600", "0.375"]
    assert rows["poor"] == ["0.000", "0.000", "0.200", "0.200"]
    assert rows["random"] == ["0.001", "0.010", "0.100", "0.100", "0.875"]


def test_each_end_of_a_signed_ranking_has_its_own_keep_curve() -> None:
    ends = ("for", "against")
    curves = [
        curve("attribution", [0.1, 0.5, 1.0], area) | {"side": side, "mode": mode}
        for side, removed, kept in zip(ends, (0.6, 0.5), (0.3, 0.2), strict=True)
        for mode, area in (("remove", removed), ("keep", kept))
    ]
    for each in curves:
        each["ablation"] = "mean"
    found = made([0.1, 0.45, 1.0])
    found.curves = curves
    rows = [line.split() for line in lines_of(found) if line.startswith("attribution")]
    assert [(row[1], row[-1]) for row in rows[:2]] == [("for", "0.300"), ("against", "0.200")]
    assert any("keep area, log" in line for line in lines_of(found))


def test_without_a_comparison_the_best_is_the_best_at_the_share_that_is_quoted() -> None:
    # The area of `good` is the larger one; at 10 % the other reaches further.
    found = made([0.3, 0.45, 1.0], chance={})
    found.curves[0]["fractions"] = [0.0, 0.5, 1.0]
    assert "`poor` puts first does 50% of what" in verdict(found)
    assert "random" not in verdict(found)
    found.curves = []
    assert verdict(found) == "no removal curve was measured (12 held-out images)"


def test_a_pvalue_of_five_percent_is_better_than_chance() -> None:
    found = made([0.1, 0.45, 1.0], chance=CHANCE | {"pvalue": 0.05, "rankings": 1})
    assert verdict(found).endswith("and a random order as much with p = 0.050")


def test_single_edges_count_by_their_qvalues_where_they_were_tested() -> None:
    effects = [
        effect(1, live_pvalue=0.01, live_qvalue=0.06, live_effect=0.2),
        effect(2, live_pvalue=0.2, live_qvalue=0.05, live_effect=0.1),
        effect(3),
    ]
    found = made([0.1, 0.45, 1.0], effects=effects)
    assert edges_sentence(found).startswith("1 of 2 single edges change the output")
    assert edges_sentence(made([0.1, 0.45, 1.0])) == "no single edge was tested"


def test_the_first_ten_single_edges_name_their_layers_where_there_are_several() -> None:
    from rich.console import Console

    def rows(**given: Any) -> list[list[str]]:
        effects = [effect(at, live_effect=0.5, live_qvalue=0.2, **given) for at in range(12)]
        console = Console(width=120, record=True, file=StringIO())
        for line in edge_table(made([0.1, 0.45, 1.0], effects=effects)):
            console.print(line)
        return [line.split() for line in console.export_text().splitlines()]

    title, head, *cells = rows(layer=7)
    assert title == ["first", "10", "single", "edges"]
    assert head[:2] == ["layer", "cluster"]
    assert [row[:3] for row in cells] == [["7", str(at), "1"] for at in range(10)]
    assert rows()[1][0] == "cluster"


def test_agreement_and_the_listed_circuit_are_told_with_their_own_figures() -> None:
    found = made(
        [0.1, 0.45, 1.0],
        agreement={"ablation": 0.5, "injection": -0.25, "clusters": 9},
        completeness={
            "edges": 1234,
            "share": 0.0123,
            "removed": 0.4,
            "kept": 0.7,
            "faithfulness": 0.3,
            "random_mean": 0.05,
            "pvalue": 0.0004,
        },
    )
    said = lines_of(found)
    assert (
        "prototype-space effects of 9 clusters against live ones: "
        "ablation ρ = +0.50, injection ρ = -0.25" in said
    )
    assert (
        "the circuit's 1,234 edges cover 1.23% of the entries: removing them does 40.0% of the "
        "full effect (random 5.0%, p = 4e-04), keeping only them avoids 30.0%" in said
    )
    found.agreement = {"ablation": None}
    assert not any("ρ" in line for line in lines_of(found))


def test_beyond_the_last_share_a_curve_stays_where_it_ends() -> None:
    found = curve("made up", [0.2, 0.6, 0.7], 0.5) | {"shares": [0.01, 0.05, 0.08]}
    assert at_share(found, 0.1) == 0.7


def test_a_ranking_is_judged_by_its_own_metric_and_beside_the_band_of_that_metric() -> None:
    found = made([0.1, 0.45, 1.0], objective={"kind": "margin"}, chance={})
    found.curves.append(curve("other", [0.25, 0.75, 1.0], 0.5) | {"metric": "margin"})
    found.random.append(found.random[0] | {"metric": "margin", "area_log": 0.875})
    assert set(intervene_fields(found)["rankings"]) == {"other"}
    assert verdict(found).startswith("removing the 10% of logit entries that `other` puts first")
    rows = {line.split()[0]: line.split()[1:] for line in lines_of(found) if "." in line}
    assert rows["random"][2] == "0.875"
    # Of the embedding there is another one, which comes first in the record.
    assert intervene_fields(found)["random"] == {"area_log": 0.1, "area_linear": 0.1}


def test_a_model_that_nothing_moves_has_a_verdict() -> None:
    found = made([0.0, 0.0, 0.0], chance=CHANCE | {"effect": 0.0, "random_mean": 0.0})
    found.full_effect["cosine"] = 0.0
    assert "`good` puts first does 0% of what removing all of them does" in verdict(found)


def test_the_verdict_names_the_end_of_a_signed_ranking() -> None:
    chance = CHANCE | {"best": "attribution", "side": "against"}
    found = made([0.1, 0.45, 1.0], objective={"kind": "margin"}, chance=chance)
    found.curves.append(curve("attribution", [0.0, 0.5, 1.0], 0.5) | {"metric": "margin"})
    assert "that `attribution against` puts first does 30% of" in verdict(found)


def test_what_was_not_measured_is_not_told() -> None:
    listed: dict[str, Any] = {"edges": 3, "share": 0.01, "removed": 0.4, "kept": 0.7}
    listed |= {"faithfulness": 0.3, "random_mean": None, "pvalue": None}
    agreement = {"ablation": 0.5, "clusters": 9}
    found = made([0.1, 0.45, 1.0], agreement=agreement, completeness=listed)
    said = lines_of(found)
    assert any(line.endswith("against live ones: ablation ρ = +0.50") for line in said)
    assert any("40.0% of the full effect, keeping only them avoids 30.0%" in line for line in said)
    fields = intervene_fields(found)
    assert (fields["images"], fields["heldout"]) == (12, True)
    assert (fields["circuit"], fields["agreement"]) == (listed, agreement)
    assert set(fields["random"]) == {"area_log", "area_linear"}
