"""Orders and records of the best edges: whose side they are on, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Some
from typing import Any

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.tensors import Fit
from xaikit.rankings import score
from xaikit.rankings.selection import edges_at, joint_edges, orders_of, ranked_edges
from xaikit.stages.fit import fit
from xaikit.statistics.sinks import destination_kinds, destination_names

K = 4


def fitted(seed: int, heldout: list[int] | None = None) -> Fit:
    A, c = slow.random_case(seed, B=8, N=5)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, heldout)
    return fit(trace, features, num_permutations=3, controls=False)


@pytest.mark.parametrize(
    ("signed", "key", "sides"),
    [(True, "attribution", ["for", "against"]), (True, "reach", [""]), (False, "kept", [""])],
)
def test_an_order_has_two_ends_where_objective_and_ranking_have_a_sign(
    signed: bool, key: str, sides: list[str]
) -> None:
    counts, support = torch.full((1, 3), 2.0), torch.tensor([[1, 1, 0]])
    live: Any = Some(objective=Some(signed=signed), counts=(counts,), support=(support,))
    scores = [torch.tensor([[[-1.0, 2.0, 9.0]]])]
    found = orders_of(key, scores, live)
    assert [order.side for order in found] == sides
    assert {order.key for order in found} == {key}
    # The last edge has no rows behind it.
    assert [order.ranked.tolist() for order in found] == [[1, 0, 2], [0, 1, 2]][: len(sides)]
    (named, *_) = orders_of(key, scores, live, support=[torch.tensor([[0, 1, 1]])], name="own")
    assert (named.key, named.ranked.tolist()) == ("own", [2, 1, 0])


def test_records_say_what_their_edge_is_and_carry_the_tests_of_held_out_images() -> None:
    made = fitted(0, [1, 3, 5])
    made.token_norms = torch.tensor([1.0, 90.0, 1.0, 1.0, 1.0])
    # Of an edge that no permutation changes.
    made.edge_zscores[1, 0, 2], made.edge_pvalues[1, 0, 2] = 0.0, 1.0
    scores = torch.arange(40.0).reshape(4, 2, 5)
    order = ranked_edges(made, scores)
    assert order.tolist() == [at for at in range(39, -1, -1) if at // 10 != 2]
    kinds, names = destination_kinds(made), destination_names(made)
    assert len(set(kinds)) == 3
    for edge in edges_at(made, scores, order):
        k, h, j = edge.key
        assert (edge.dst_token, edge.dst_kind, edge.dst_name) == (j, kinds[j], names[j])
        assert edge.zscore == float(made.edge_zscores[k, h, j])
        assert edge.testable != bool(made.untestable[k, h, j])
        assert (edge.score, edge.support) == (float(scores[k, h, j]), int(made.counts[k]))
    assert not edges_at(made, scores, torch.tensor([made.space.flat(1, 0, 2)]))[0].testable


def test_an_edge_pushes_for_an_objective_where_its_effect_is_above_nothing() -> None:
    made = fitted(0)
    effects = torch.zeros(4, 2, 5)
    effects[0, 0, :2] = torch.tensor([0.5, -0.5])
    found = edges_at(made, effects, torch.arange(3), effects)
    assert [(edge.effect, edge.side) for edge in found] == [
        (0.5, "for"),
        (-0.5, "against"),
        (0.0, "against"),
    ]


def test_edges_of_several_layers_name_theirs_and_end_where_none_is_left() -> None:
    low, high = fitted(0), fitted(1)
    high = replace(high, provenance=replace(high.provenance, layer=6, next_layer=7))
    scores = [torch.zeros(4, 2, 5), torch.zeros(4, 2, 5)]
    scores[0][1, 0, 2], scores[1][3, 1, 4], scores[1][0, 0, 0] = 2.0, 3.0, 1.0
    # The cluster without rows, and an edge that is not allowed, come first by their scores alone.
    scores[0][2] = 9.0
    scores[1][0, 1, 1] = 8.0
    allowed = [torch.ones(4, 2, 5, dtype=torch.bool) for _ in scores]
    # One of those that are not comes before the cluster without rows, one after it.
    allowed[1][0, 1, 1] = allowed[0][0, 1, 1] = False
    found = joint_edges([low, high], scores, 3, allowed=allowed)
    places = [(edge.layer, edge.next_layer, tuple(edge.key)) for edge in found]
    assert places == [(6, 7, (3, 1, 4)), (2, 3, (1, 0, 2)), (6, 7, (0, 0, 0))]
    every = joint_edges([low, high], scores, 10**3, allowed=allowed)
    assert len(every) == 2 * 3 * 2 * 5 - 2
    assert len(joint_edges([low, high], scores, 10**3)) == 2 * 3 * 2 * 5


def test_a_ranking_of_the_fit_scores_each_layer_by_its_own() -> None:
    fits = [fitted(0), fitted(1)]
    live: Any = Some(sites=[Some(fit=each) for each in fits])
    for found, made in zip(score("weight", live), fits, strict=True):
        assert torch.equal(found, made.prototypes.abs())
