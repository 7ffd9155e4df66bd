"""A circuit for each group of images, and what it does to the other groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.tables import tables
from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.interventions import Live, LiveOptions, full_patch, order_edges, sets_patch
from xaikit.interventions.covers import cover_share, entry_counts
from xaikit.interventions.groups import image_groups
from xaikit.rankings.live import joint_scores
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.groups import GroupOptions, _orders, group_circuits
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

OPTIONS = GroupOptions(shares=(0.1,), draws=1, top_k=4, batch_size=8)


@pytest.fixture(scope="module")
def run():
    tower, source = load_tower("xaikit-demo"), SceneSource(24, 0)
    parts = []
    for traced in trace_layers(tower, source, [(0, 1), (2, 3)]):
        features = cluster(traced, num_clusters=4, sample_tokens=0, holdout=0.5)
        found = fit(traced, features, destination="cluster", num_permutations=2, controls=False)
        parts.append((features, found))
    colours = source.factors().colour[:, 0]
    groups = {"warm": [], "cold": []}
    for row, colour in enumerate(colours.tolist()):
        groups["warm" if colour in (0, 3, 4) else "cold"].append(row)
    return tower, source, parts, groups


@pytest.fixture(scope="module")
def found(run) -> GroupCircuits:
    tower, source, parts, groups = run
    # A group that has nothing to test on is left out, and said to be.
    few = {"few": parts[0][0].discovery[:3]}
    given = {"ids": source.ids, "options": OPTIONS}
    return group_circuits(tower, source, parts[::-1], groups | few, **given)


def test_figures_are_of_the_groups_own_test_images_and_of_the_others(run, found) -> None:
    tower, source, parts, groups = run
    heldout = set(parts[0][0].heldout)
    choose = [row for row in groups["cold"] if row not in heldout]
    test = [row for row in groups["cold"] if row in heldout]
    others = [row for row in groups["warm"] if row in heldout]
    assert choose
    assert test
    given = {"ids": source.ids, "options": LiveOptions(batch_size=8)}
    tables = joint_scores(["reach"], tower, source, parts, images=choose, **given)["reach"]
    counts = [entry_counts(features.labels[test], 4, "cluster") for features, _ in parts]
    edges = order_edges("own", tables, counts).set_of(0.1)
    # The slow definition: the two groups by themselves. Which rows of the edge at the boundary
    # are taken depends on the images that are run together.
    measured = {}
    for name, rows in (("own", test), ("others", others)):
        live = Live(tower, source, parts, images=rows, **given)
        patches = [full_patch(live.shapes), sets_patch([edges])]
        measured[name] = [float(each["cosine"].mean()) for each in live.measure(patches)]
    record = next(each for each in found.groups if each["name"] == "cold")
    figure = next(each for each in record["figures"] if each["ranking"] == "own")
    assert record["full_effect"] == pytest.approx(measured["own"][0], rel=1e-5)
    assert figure["effect"] == pytest.approx(measured["own"][1], rel=0.05)
    assert figure["others"] == pytest.approx(measured["others"][1], rel=0.05)
    assert (record["images"], record["test_images"]) == (len(choose), len(test))
    # The share is of the group's own entries, and of the others' entries what it then is.
    theirs = [entry_counts(features.labels[others], 4, "cluster") for features, _ in parts]
    assert figure["others_share"] == pytest.approx(cover_share(edges, theirs), rel=1e-6)
    assert figure["others_share"] != pytest.approx(cover_share(edges, counts), rel=1e-3)
    assert figure["fraction"] == pytest.approx(figure["effect"] / record["full_effect"])


def test_a_group_without_images_to_test_on_is_left_out(run, found) -> None:
    tower, source, parts, groups = run
    assert (found.left_out, found.heldout) == (["few"], True)
    # Lowest layer first, in whatever order they are given.
    assert found.layers == [[0, 1], [2, 3]]
    rows = found.provenance.options["groups"]
    assert set(rows) == {"warm", "cold"}
    assert rows["cold"] == [source.ids[row] for row in sorted(groups["cold"])]
    few = {"few": parts[0][0].discovery[:3]}
    with pytest.raises(UsageError, match="fewer than two groups have images"):
        group_circuits(tower, source, parts, {"warm": groups["warm"]} | few, ids=source.ids)


def test_without_a_holdout_groups_are_tested_on_the_images_that_chose_and_say_so(run) -> None:
    tower, source, parts, groups = run
    every = list(range(len(source)))
    parts = [(replace(features, discovery=every, heldout=[]), fitted) for features, fitted in parts]
    small = {name: rows[:2] for name, rows in groups.items()}
    options = replace(OPTIONS, draws=0, shares=(0.5,))
    found = group_circuits(tower, source, parts[:1], small, ids=source.ids, options=options)
    assert not found.heldout
    assert [(each["images"], each["test_images"]) for each in found.groups] == [(2, 2), (2, 2)]


def test_every_group_has_its_circuit_and_reads_back(found, tmp_path: Path) -> None:
    assert [each["name"] for each in found.groups] == ["warm", "cold"]
    for record in found.groups:
        assert len(record["paths"]) == len(record["specific_paths"]) == 4
        assert record["paths"] != record["specific_paths"]
        assert {figure["ranking"] for figure in record["figures"]} == {
            "own",
            "specific",
            "common",
            "random",
        }
    rows = tables(found)
    assert rows["groups"]["name"] == ["warm"] * 4 + ["cold"] * 4
    assert len(rows["paths"]["head"]) == 8
    assert "circuits of 2 groups" in repr(found)
    found.save(tmp_path / "groups.json")
    assert GroupCircuits.load(tmp_path / "groups.json").groups == found.groups


def test_groups_are_folders_or_what_a_file_says(tmp_path: Path) -> None:
    ids, folders = ["a/1", "a/2", "b/1", "c/1"], ["a", "a", "b", "c"]
    assert image_groups("folder", ids, folders) == {"a": [0, 1], "b": [2], "c": [3]}
    file = tmp_path / "groups.json"
    file.write_text('{"a": "one", "b": "two", "a/2": "two"}')
    assert image_groups(str(file), ids, folders) == {"one": [0], "two": [1, 2]}
    table = tmp_path / "groups.csv"
    table.write_text("image,group\na/1,one\nc/1,two\n")
    assert image_groups(str(table), ids, None) == {"one": [0], "two": [3]}
    table.write_text("a/9,one\n")
    with pytest.raises(UsageError, match="line 1: a/9 is no image"):
        image_groups(str(table), ids, folders)
    with pytest.raises(UsageError, match="no folders"):
        image_groups("folder", ids, None)


def test_specific_edges_matter_more_to_the_group_than_to_the_mean_of_the_others() -> None:
    # Three groups, one layer, edges in order: common to all, the first group's, the others'.
    tables = [torch.tensor(row).reshape(1, 1, 3) for row in ([5.0, 3, 0], [9.0, 0, 3], [5.0, 0, 3])]
    orders = _orders([[table] for table in tables], 0)
    assert orders["own"][0].flatten().argsort(descending=True).tolist() == [0, 1, 2]
    assert int(orders["specific"][0].argmax()) == 1
    expected = [5 / 8 - (9 / 12 + 5 / 8) / 2, 3 / 8, -(3 / 12 + 3 / 8) / 2]
    assert torch.allclose(orders["specific"][0].flatten(), torch.tensor(expected))
    assert int(orders["common"][0].argmax()) == 0
    # Effects with a sign count by their size.
    signed = _orders([[torch.tensor([[[3.0, -4, -1]]])], [torch.ones(1, 1, 3)]], 0)["own"][0]
    assert torch.allclose(signed.flatten(), torch.tensor([3.0, -4, -1]) / 8)
