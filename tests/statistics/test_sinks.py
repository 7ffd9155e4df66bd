"""Which destinations are called sinks, and what they are called."""

from __future__ import annotations

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.edges import EdgeKey
from xaikit.stages.fit import fit
from xaikit.statistics.sinks import (
    SINK_RATIO,
    destination_kinds,
    destination_names,
    sink_tokens,
    words_of_edges,
)


def test_sinks_are_above_three_times_the_median_not_the_mean():
    # Mean 4.0: one large token moves the mean past itself, never the median.
    norms = torch.tensor([1.0, 1.0, 1.0, 1.0, 16.0])
    assert sink_tokens(norms).tolist() == [False, False, False, False, True]
    assert float(norms.mean()) * SINK_RATIO < 16.0
    crowd = torch.tensor([1.0, 1.0, 1.0, 9.0, 9.0])
    assert float(crowd.mean()) * SINK_RATIO > 9.0
    assert sink_tokens(crowd).tolist() == [False, False, False, True, True]


def test_a_token_at_the_threshold_is_no_sink():
    norms = torch.tensor([2.0, 2.0, 2.0, 2.0 * SINK_RATIO])
    assert not sink_tokens(norms).any()
    above = norms.clone()
    above[3] = torch.nextafter(norms[3], torch.tensor(100.0))
    assert sink_tokens(above).tolist() == [False, False, False, True]


def test_no_norms_make_no_sinks():
    assert sink_tokens(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        (["class token"], ["class token", "patch (0, 0)", "patch (0, 1)", "patch (0, 2)"]),
        (["register 1", "register 2"], ["register 1", "register 2", "token 2", "token 3"]),
    ],
)
def test_prefix_tokens_are_named_by_what_they_are_and_are_no_sinks(prefix, names):
    A, c = slow.random_case(0, B=4, N=4)
    trace = make_trace(torch.from_numpy(A))
    trace.info.prefix_kinds = prefix
    if len(prefix) > 1:
        trace.info.grid = []
    found = fit(trace, make_features(trace, torch.from_numpy(c), 4), num_permutations=3)
    found.token_norms = torch.tensor([50.0, 1.0, 1.0, 50.0])
    kinds = destination_kinds(found)
    patches = ["patch"] * (3 - len(prefix))
    assert kinds == [*["prefix"] * len(prefix), *patches, "sink"]
    assert destination_names(found) == [*names[:3], f"{names[3]}, sink"]


def test_a_cluster_that_is_a_destination_is_called_by_its_number():
    A, c = slow.random_case(0, B=4, N=4)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), 4)
    found = fit(trace, features, destination="cluster", num_permutations=3)
    assert found.prototypes.shape[1] != 4
    assert destination_kinds(found) == ["cluster"] * 4
    assert destination_names(found) == [f"cluster {k}" for k in range(4)]


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_records_say_what_an_edge_joins_by_what_prefix_clusters_are(where):
    A, c = slow.random_case(0, B=4, N=4)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), 4)
    features.kinds = ["class token"]
    found = fit(trace, features, destination=where, num_permutations=3)
    assert found.kinds == features.kinds
    words = words_of_edges(found)
    ends = {"cluster": ("cluster", "class token"), "token": ("patch", "patch (0, 2)")}[where]
    assert words(EdgeKey(3, 0, 3)) == dict(
        zip(("src_name", "dst_kind", "dst_name"), ("class token", *ends), strict=True)
    )
    assert words(EdgeKey(1, 0, 0))["src_name"] == "cluster 1"
