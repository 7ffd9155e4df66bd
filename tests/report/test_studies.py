"""Tables of controls and stability: what is said where, and Markdown that renders."""

from __future__ import annotations

from dataclasses import replace

from conftest import ORIGIN
from rich.console import Console

from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import Circuit, Edge
from xaikit.artifacts.studies import Baselines, ClusterSweep, Stability
from xaikit.report.studies import baselines_sheet, stability_sheet, sweep_sheet
from xaikit.report.summaries import control_text, stability_lines

PROVENANCE = Provenance(origin=ORIGIN, layer=2, next_layer=3)


def row(prediction, destination, r2, added=None, sd=None):
    return {
        "prediction": prediction,
        "destination": destination,
        "r2": r2,
        "added": added,
        "added_sd": sd,
    }


def baselines(rows):
    return Baselines(
        provenance=PROVENANCE,
        trace_file="",
        num_clusters=4,
        holdout=0.5,
        draws=3,
        seed=0,
        num_images=10,
        num_test_images=12,
        rows=rows,
    )


def test_each_prediction_is_one_line_with_both_destinations():
    sheet = baselines_sheet(
        baselines(
            [
                row("mean", None, 0.1),
                row("position + clusters", "cluster", 0.45, 0.25),
                row("position + clusters", "token", 0.3, 0.1),
                row("position + shuffled clusters", "token", 0.2, -0.0004, 0.0012),
                row("position + shuffled clusters", "cluster", 0.2, 0.0, 0.003),
                row("position + position clusters", "token", 0.2, -1e-13),
                row("position + position clusters", "cluster", 0.2, 1e-13),
            ]
        )
    )
    assert [list(cells) for cells in sheet.rows] == [
        ["mean", "0.100", "", "0.100", ""],
        [
            "position + clusters of gates",
            "0.300",
            "+0.1000 (12% of the rest)",
            "0.450",
            "+0.2500 (31% of the rest)",
        ],
        [
            "position + the same clusters, images shuffled",
            *("0.200", "-0.0004 ± 0.0012", "0.200", "0.0000 ± 0.0030"),
        ],
        ["position + k-means of positions", "0.200", "0.0000", "0.200", "0.0000"],
    ]
    assert "10 images" in sheet.title
    assert "held-out images (12)" in sheet.title


def stability_found():
    own = {
        "r2_added": 0.1,
        "r2_added_sd": 0.01,
        "jaccard": 0.5,
        "jaccard_sd": 0.1,
        "jaccard_pairwise": 0.4,
        "jaccard_chance": 0.001,
        "jaccard_seeds": None,
        "jaccard_seeds_patches": None,
        "jaccard_halves": 0.3,
        "jaccard_halves_patches": 0.25,
        "survival": 0.6,
    }
    one = {
        "num_clusters": 8,
        "clusters_used": 7.5,
        "inertia": 30.25,
        "ari": 0.91,
        "ari_halves": 0.45,
    }
    return Stability(
        provenance=PROVENANCE,
        trace_file="",
        rank="contrast",
        top_k=50,
        seeds=3,
        resamples=20,
        holdout=0.0,
        seed=0,
        num_images=10,
        num_test_images=10,
        rows=[{**one, "token": own, "cluster": {**own, "r2_added": -0.2}}],
    )


def test_markdown_tables_are_well_formed():
    sheets = [
        stability_sheet(stability_found()),
        baselines_sheet(baselines([row("mean", None, 0)])),
    ]
    for sheet in sheets:
        title, blank, *lines = sheet.markdown().rstrip("\n").split("\n")
        assert title
        assert not blank
        assert {line.count("|") for line in lines} == {len(sheet.columns) + 1}
        assert set(lines[1]) <= set("|-: ")


def test_a_sweep_has_two_lines_for_each_number_of_clusters():
    token, cluster = stability_sheet(stability_found()).rows
    assert token == [
        *("8", "7.5", "30.2", "0.91", "0.45", "token"),
        *("+0.100 ± 0.010", "0.50 ± 0.10", "0.001", "", "0.30", "0.25"),
    ]
    assert cluster[:7] == ["", "", "", "", "", "cluster", "-0.200 ± 0.010"]
    assert "the same ones" in stability_sheet(stability_found()).title
    assert "3 k-means seeds" in stability_sheet(stability_found()).title
    guided = replace(PROVENANCE, options={"method": "guided"})
    title = stability_sheet(replace(stability_found(), provenance=guided)).title
    assert "k-means" not in title
    console = Console(width=160)
    with console.capture() as captured:
        console.print(stability_sheet(stability_found()).rich())
    assert "ARI of seeds" in captured.get()


def test_controls_in_words():
    assert control_text({}) == ""
    found = control_text(
        {
            "shuffled_added": -0.00123,
            "shuffled_added_sd": 0.0004,
            "position_added": -1e-12,
            "random_weights_added": 0.02,
        }
    )
    assert found == (
        "; controls: -0.0012 ± 0.0004 with images shuffled, +0.0000 as k-means of positions, "
        "+0.0200 in a model of random weights"
    )


def test_survival_in_words():
    paths = [
        Edge(cluster_id=k, head=0, dst_token=1, weight=1.0, support=3, survival=share)
        for k, share in enumerate((1.0, 0.9, 0.4))
    ]
    found = Circuit(provenance=PROVENANCE, fit_file="", top_k=3, paths=paths)
    assert stability_lines(found) == []
    found.stability = {
        "resamples": 10,
        "jaccard": 0.5,
        "jaccard_sd": 0.1,
        "jaccard_chance": 0.02,
    }
    assert stability_lines(found) == [
        "10 resamples of the images: Jaccard 0.50 ± 0.10 with this circuit (by chance 0.02), "
        "2 of 3 edges survive 90% of them"
    ]


def test_titles_say_of_what_and_on_how_many_images_a_study_is():
    found = baselines([row("mean", None, 0)])
    assert baselines_sheet(found).title == (
        "made-up, gates of layer 2 → attention of layer 3, 4 clusters: R² of the attention "
        "logits, learnt on 10 images, scored on held-out images (12)"
    )
    assert "scored on the same images (12)" in baselines_sheet(replace(found, holdout=0.0)).title
    of = replace(stability_found(), top_k=7, rank="energy", resamples=21, holdout=0.5)
    title = stability_sheet(of).title
    assert "circuits of 7 edges by energy on" in title
    assert "resampled 21 times; R² on" in title
    assert title.endswith(" held-out images")


def test_a_sweep_of_numbers_names_its_layers_folds_and_errors():
    rows = [
        {"num_clusters": number, "r2_added": added, "r2_added_se": 0.0123}
        for number, added in ((4, 0.1), (8, 0.25))
    ]
    found = ClusterSweep(
        provenance=PROVENANCE,
        method="guided",
        prefix="own",
        destination="cluster",
        num_clusters=8,
        folds=3,
        num_images=1234,
        layers=[[2, 3], [5, 6]],
        rows=rows,
    )
    sheet = sweep_sheet(found)
    assert sheet.title.startswith(
        "layers 2 → 3, 5 → 6: R² that guided clusters add to position, edges to clusters, over "
        "3 folds of 1,234 discovery images; "
    )
    assert list(map(list, sheet.rows)) == [
        ["4", "+0.1000 ± 0.0123", ""],
        ["8", "+0.2500 ± 0.0123", "chosen"],
    ]
