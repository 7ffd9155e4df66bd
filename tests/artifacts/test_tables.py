"""Records as plain columns: a place for each layer, a row for each point, a name for each end."""

from __future__ import annotations

from types import SimpleNamespace as Some

import numpy as np
import pytest
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.tables import columns_of, tables
from xaikit.errors import UsageError
from xaikit.stages.fit import fit


def artefact(stage, **own):
    """Something with the records of a stage, of layers 2 and 3."""
    return Some(STAGE=stage, layer=2, next_layer=3, **own)


def test_a_record_without_a_field_has_nothing_there():
    rows = [{"a": 1, "b": 2}, {"b": 3, "c": 4}, {}]
    assert columns_of(rows) == {"a": [1, None, None], "b": [2, 3, None], "c": [None, 4, None]}


def test_the_layers_come_first_and_are_the_records_own_where_these_say_them():
    rows = [{"r2": 0.5, "layer": 7, "next_layer": 8}, {"r2": 0.25}]
    found = tables(artefact("baselines", rows=rows))["rows"]
    assert list(found) == ["layer", "next_layer", "r2"]
    assert found == {"layer": [7, 2], "next_layer": [8, 3], "r2": [0.5, 0.25]}
    assert tables(artefact("baselines", rows=[]))["rows"] == {"layer": [], "next_layer": []}
    with pytest.raises(UsageError, match="SimpleNamespace has no records"):
        tables(artefact("trace"))


def test_a_record_inside_a_row_becomes_columns_of_its_own():
    row = {"num_clusters": 4, "token": {"r2": 0.5, "sd": 0.1}, "cluster": {"r2": 0.25, "sd": 0.2}}
    found = tables(artefact("stability", rows=[row]))["rows"]
    wanted = {"num_clusters": 4, "token_r2": 0.5, "token_sd": 0.1, "cluster_r2": 0.25}
    assert {name: found[name] for name in wanted} == {k: [v] for k, v in wanted.items()}


def test_a_curve_is_a_row_a_point_and_what_is_of_another_length_is_none_of_it():
    curve = {"ranking": "reach", "shares": [0.1, 1.0], "effects": [0.2, 0.4], "fractions": [0.5, 1]}
    curve |= {"edges": [1, 9], "area_log": 0.7, "cpr": None, "seeds": [1, 2, 3], "by": {"a": 1}}
    found = tables(artefact("intervene", effects=[], curves=[curve], random=[], clusters=[]))
    assert list(found) == ["effects", "curves", "random", "clusters"]
    assert found["curves"] == {
        "layer": [2, 2],
        "next_layer": [3, 3],
        "ranking": ["reach", "reach"],
        "share": [0.1, 1.0],
        "effect": [0.2, 0.4],
        "fraction": [0.5, 1],
        "edges": [1, 9],
        "area_log": [0.7, 0.7],
        "cpr": [None, None],
    }


def test_groups_are_a_row_a_figure_and_a_row_an_edge():
    def group(name, figures, paths):
        whole = {"name": name, "images": 6, "test_images": 2, "full_effect": 0.5}
        return {**whole, "figures": figures, "paths": paths, "specific_paths": []}

    figures = [{"ranking": "own", "effect": 0.2}, {"ranking": "random", "effect": 0.1}]
    groups = [group("a", figures, [{"head": 3}]), group("b", figures[:1], [])]
    found = tables(artefact("groups", groups=groups))
    assert found["groups"]["name"] == ["a", "a", "b"]
    assert found["groups"]["ranking"] == ["own", "random", "own"]
    assert found["groups"]["effect"] == [0.2, 0.1, 0.2]
    for name, value in (("images", 6), ("test_images", 2), ("full_effect", 0.5)):
        assert found["groups"][name] == [value] * 3
    paths = {"layer": [2], "next_layer": [3], "name": ["a"], "head": [3]}
    assert found["paths"] == paths


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_every_edge_of_a_fit_is_a_row_of_its_own_numbers(destination):
    trace = make_trace(torch.randn(8, 2, 5, 5))
    labels = torch.arange(40).reshape(8, 5) % 3
    made = fit(trace, make_features(trace, labels, 3), destination=destination, num_permutations=5)
    found = tables(made)["edges"]
    assert "dst_token" in found or destination == "cluster"
    assert ("dst_cluster" in found) == (destination == "cluster")
    ends = found["dst_cluster" if destination == "cluster" else "dst_token"]
    place = (found["cluster_id"], found["head"], ends)
    assert len(set(zip(*map(np.ndarray.tolist, place), strict=True))) == made.prototypes.numel()
    for name, tensor in {
        "weight": made.prototypes,
        "contrast": made.contrast,
        "energy": made.energy,
        "zscore": made.edge_zscores,
        "pvalue": made.edge_pvalues,
        "qvalue": made.edge_qvalues,
        "testable": ~made.untestable,
    }.items():
        assert np.array_equal(found[name], tensor.numpy()[place]), name
    assert np.array_equal(found["support"], made.support.numpy()[place[0], place[2]])
