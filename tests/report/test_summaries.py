"""What commands say of the images behind their tests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace
from rich.console import Console

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.results import ClusterEffect, EdgeEffect
from xaikit.report.summaries import (
    NO_TESTS,
    added,
    causal_lines,
    circuit_lines,
    cluster_lines,
    edge_cells,
    fit_fields,
    fit_lines,
    probability,
    table,
    target_causal_lines,
)
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal


@pytest.mark.parametrize("heldout", [None, [1, 3, 4, 6]])
def test_tests_say_whether_images_were_held_out(heldout):
    logits, labels = slow.random_case(0, B=8, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4, heldout)
    made = fit(trace, features, num_permutations=3)
    chosen = circuit(made, top_k=3)
    edges = target_causal(trace, features, made, chosen, num_permutations=3)
    clusters = causal(features, made, num_permutations=3)
    for found, lines in (
        (edges, target_causal_lines(edges)),
        (clusters, causal_lines(clusters)),
        (made, fit_lines(made)),
    ):
        assert found.heldout == (heldout is not None)
        assert found.num_test_images == (4 if heldout else 8)
        said = " ".join(line for line in lines if isinstance(line, str))
        assert ("none of them held out" in said) == (heldout is None)
        if heldout and found is not made:
            assert "tested on 4 held-out images" in said
    assert (
        "tested on 8 images"
        in target_causal_lines(replace(edges, heldout=False, num_test_images=8))[-1]
    )


def test_a_title_is_as_wide_as_the_terminal_and_not_as_its_table():
    console = Console(width=80, record=True)
    console.print(table("a title of more words than columns", ["<a", "b"], [["1", "2"]]))
    assert console.export_text().splitlines()[0].rstrip() == "a title of more words than columns"


def shown(lines) -> list[str]:
    """Lines as a terminal has them, cells of tables apart by one space."""
    console = Console(width=200, record=True)
    for line in lines:
        console.print(line)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


@pytest.mark.parametrize(
    ("value", "testable", "text"),
    [
        (0.0234, True, "0.023"),
        (0.001, True, "0.001"),
        (0.000999, True, "1e-03"),
        (0.00002, True, "2e-05"),
        (None, True, ""),
        (1.0, False, "not testable"),
        (None, False, "not testable"),
    ],
)
def test_a_probability_is_short_and_says_where_there_is_no_test(value, testable, text):
    assert probability(value, testable=testable) == text


@pytest.fixture
def features():
    """Clusters of eight images with four tokens: 29, 2, 0 and 1 of them."""
    logits, _ = slow.random_case(0, B=8, N=4)
    labels = torch.zeros(8, 4, dtype=torch.int64)
    labels[0, :2], labels[3, 3] = 1, 3
    return make_features(make_trace(torch.from_numpy(logits)), labels, 4)


def test_clusters_are_told_with_what_is_odd_about_them(features):
    features.inertia, features.distinct_points = 12.34, 1234
    said = cluster_lines(features)
    assert said[0] == (
        "3 of 4 clusters used, sizes 29 … 1 of 32 tokens; mean squared distance 12.3"
    )
    assert "note: one cluster holds 91% of all tokens" in said
    assert "note: 1 clusters are empty (1,234 distinct gate patterns in the sample)" in said
    assert not any("by position" in line or NO_TESTS in line or "held out" in line for line in said)
    # Nine tenths are not yet odd.
    features.cluster_sizes = torch.tensor([9, 1, 0, 0])
    assert not any("one cluster holds" in line for line in cluster_lines(features))
    features.labels[5, :2] = 3
    features.cluster_sizes = torch.bincount(features.labels.reshape(-1), minlength=4)
    features.kinds = ["class token", "registers"]
    features.discovery, features.heldout = [0, 1, 2], [3, 4]
    said = cluster_lines(features)
    assert not any("one cluster holds" in line for line in said)
    assert "clusters by position: 2 the class token, 3 the registers" in said
    assert said[-1] == "learnt on 3 images, 2 held out"
    # Of guided clusters there are tests on held-out images alone.
    features.method = "guided"
    assert features.testable
    features.heldout = []
    assert not features.testable
    assert f"note: fits of these clusters have {NO_TESTS}" in cluster_lines(features)


@pytest.fixture
def fitted(features):
    """A fit of them with numbers that are told apart."""
    logits, _ = slow.random_case(0, B=8, N=4)
    found = fit(make_trace(torch.from_numpy(logits)), features, num_permutations=3)
    found.r2, found.r2_mean, found.r2_position, found.r2_position_cluster = 0.4, 0.1, 0.2, 0.25
    found.heldout_r2, found.controls = {}, {}
    return found


def test_what_clusters_add_is_told_of_the_images_that_it_was_scored_on(fitted):
    assert added(fitted) == pytest.approx(0.05)
    said = shown(fit_lines(fitted))
    assert said[0] == "clusters add +0.0500 R² to position, on the same images"
    assert said[2:6] == [
        "position + cluster 0.2500",
        "position only 0.2000",
        "mean only 0.1000",
        "cluster prototypes alone 0.4000",
    ]
    names = ("r2_position_cluster", "r2_position", "r2_mean", "r2")
    fitted.heldout_r2 = dict(zip(names, (0.15, 0.12, 0.11, 0.3), strict=True))
    fitted.controls = {
        "shuffled_added": 0.001,
        "shuffled_added_sd": 0.0002,
        "position_added": -1e-9,
        "random_weights_added": 0.02,
    }
    assert added(fitted) == pytest.approx(0.03)
    said = shown(fit_lines(fitted))
    assert said[0] == (
        f"clusters add +0.0300 R² to position, on held-out images ({fitted.num_test_images}); "
        "controls: +0.0010 ± 0.0002 with images shuffled, +0.0000 as k-means of positions, "
        "+0.0200 in a model of random weights"
    )
    assert said[2] == "position + cluster 0.2500 0.1500"
    assert said[5] == "cluster prototypes alone 0.4000 0.3000"


def test_significant_and_untestable_edges_are_counted_among_those_there_are(fitted):
    heads, width = fitted.prototypes.shape[1:]
    # Cluster 2 has no rows: its edges are none.
    fitted.edge_pvalues[:], fitted.edge_qvalues[:], fitted.edge_zscores[:] = 0.001, 0.5, 1.0
    fitted.edge_qvalues[0, 0, :2] = torch.tensor([0.0499, 0.0501])
    fitted.edge_zscores[1, 0, 0], fitted.edge_pvalues[1, 0, 0] = 0.0, 1.0
    fitted.edge_zscores[2], fitted.edge_pvalues[2] = 0.0, 1.0
    fields = fit_fields(fitted)
    edges = 3 * heads * width
    assert (fields["edges"], fields["edges_q05"], fields["edges_untestable"]) == (edges, 1, 1)
    assert fields["r2_position_cluster"] == 0.25
    said = fit_lines(fitted)
    assert f"1 of {edges} edges ({1 / edges:.1%}) have q ≤ 0.05" in said[2]
    assert any(line.startswith("1 edges are not testable") for line in said[2:])


def edge(**given) -> Edge:
    known = {"cluster_id": 1, "head": 2, "dst_token": 3, "weight": 0.5, "support": 1234}
    known |= {"contrast": 0.25, "zscore": -2.0, "qvalue": 0.03, "dst_name": "patch (0, 2)"}
    return Edge(**{**known, **given})


def test_an_edge_s_row_has_its_layer_and_side_where_there_are_any():
    columns, rows = edge_cells([edge(), edge(testable=False, zscore=0.0, dst_name="")])
    assert columns == ["cluster", "head", "<destination", "weight", "contrast", "z", "q", "support"]
    assert rows == [
        ["1", "2", "patch (0, 2)", "+0.500", "+0.250", "-2.0", "0.030", "1,234"],
        ["1", "2", "patch", "+0.500", "+0.250", "", "not testable", "1,234"],
    ]
    columns, rows = edge_cells(
        [edge(layer=4, next_layer=5, side="for", src_name="class token"), edge(layer=6)]
    )
    assert [row[1] for row in rows] == ["class token", "1"]
    assert (columns[0], columns[-1]) == ("layer", "<pushes")
    assert [(row[0], row[-1]) for row in rows] == [("4", "for"), ("6", "")]


def test_a_circuit_says_what_survives_other_images(fitted):
    found = circuit(fitted, top_k=12)
    found.paths = [edge(survival=share) for share in (0.9, 0.89, None)] + [edge()] * 9
    found.stability = {"resamples": 20, "jaccard": 0.75, "jaccard_sd": 0.05, "jaccard_chance": 0.1}
    found.significant, found.tested = 7, 1000
    said = shown(circuit_lines(found))
    assert said[0] == "first 10 of 12 edges by weight"
    assert len([line for line in said if line.startswith("1 2 patch")]) == 10
    assert said[-2:] == [
        "7 of all 1,000 edges have q ≤ 0.05",
        "20 resamples of the images: Jaccard 0.75 ± 0.05 with this circuit (by chance 0.10), "
        "1 of 12 edges survive 90% of them",
    ]
    found.paths, found.max_qvalue = [], 0.1
    assert circuit_lines(found) == [
        "no edge with q ≤ 0.1: the circuit is empty (1,000 edges tested)"
    ]
    found.significant, found.paths = None, [edge()]
    assert NO_TESTS in circuit_lines(found)


def test_effects_stand_beside_their_own_pvalues(fitted, features):
    clusters = causal(features, fitted, num_permutations=3)
    clusters.effects = [
        ClusterEffect(
            cluster_id=5,
            support=1234,
            ablation_effect=0.5,
            injection_effect=0.25,
            ablation_pvalue=0.01,
            injection_pvalue=0.02,
            injection_testable=True,
        )
    ]
    assert "5 1,234 0.5000 0.010 0.2500 0.020" in shown(causal_lines(clusters))
    clusters.effects[0] = replace(clusters.effects[0], injection_testable=False)
    assert "5 1,234 0.5000 0.010 0.2500 not testable" in shown(causal_lines(clusters))


def test_an_edge_s_effects_stand_beside_their_own_pvalues(fitted, features):
    logits, _ = slow.random_case(0, B=8, N=4)
    found = target_causal(
        make_trace(torch.from_numpy(logits)), features, fitted, circuit(fitted), num_permutations=3
    )
    found.effects = [
        EdgeEffect(
            cluster_id=5,
            head=1,
            dst_token=2,
            support=12,
            edge_effect=0.5,
            edge_pvalue=0.01,
            alignment_gain=-0.25,
            alignment_pvalue=0.02,
            dst_name="patch (0, 1)",
        )
    ]
    assert "5 1 patch (0, 1) 0.5000 0.010 -0.2500 0.020" in shown(target_causal_lines(found))
    found.effects = []
    assert target_causal_lines(found) == ["the circuit has no edges to test"]


def test_tables_have_the_first_ten_and_files_have_all(fitted, features):
    logits, _ = slow.random_case(0, B=8, N=4)
    trace = make_trace(torch.from_numpy(logits))
    edges = target_causal(trace, features, fitted, circuit(fitted), num_permutations=3)
    edges.effects = [replace(edges.effects[0], dst_name=f"place{at}") for at in range(12)]
    said = " ".join(shown(target_causal_lines(edges)))
    assert [f"place{at} " in said for at in range(12)] == [True] * 10 + [False] * 2
    clusters = causal(features, fitted, num_permutations=3)
    clusters.effects = [
        replace(clusters.effects[0], cluster_id=100 + at, src_name="") for at in range(12)
    ]
    rows = [line.split()[0] for line in shown(causal_lines(clusters))]
    assert [f"{100 + at}" in rows for at in range(12)] == [True] * 10 + [False] * 2


def test_figures_of_a_fit_are_of_its_own_images():
    logits, labels = slow.random_case(0, B=8, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4, [1, 3])
    found = fit(trace, features, num_permutations=3)
    fields = fit_fields(found)
    assert (fields["num_images"], fields["num_test_images"]) == (6, 2)
    assert fields["heldout_r2"] == found.heldout_r2 != {}
    said = shown(fit_lines(found))
    assert said[1] == "prediction of the logits R² on 6 discovery images R² on held-out images (2)"
    assert any(f"{found.null} null, 2 images)" in line for line in said)
    # What no image is fit to test has no number of significant edges, not even none.
    features = make_features(trace, torch.from_numpy(labels), 4)
    features.method = "guided"
    assert fit_fields(fit(trace, features.identify(), num_permutations=3))["edges_q05"] is None
