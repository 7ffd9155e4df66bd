"""Which single edges are tested, and what their records say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace
from planted_run import planted_run

from xaikit.artifacts.results import EdgeEffect
from xaikit.errors import UsageError
from xaikit.interventions import CurveOptions, circuit_keys, circuit_set, edge_targets, order_edges
from xaikit.interventions.edges import compare_edges
from xaikit.interventions.targets import EdgeTargets, _bare_effect, record_key
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal

OPTIONS = CurveOptions(edges=3, edge_draws=5, draws=2, seed=4)
EFFECT = EdgeEffect(
    cluster_id=0,
    head=0,
    dst_token=1,
    dst_cluster=None,
    support=3,
    edge_effect=0.1,
    edge_pvalue=0.5,
    alignment_gain=None,
    alignment_pvalue=None,
    qvalue=0.5,
)
OTHER = SimpleNamespace(layer=7, next_layer=8)


def test_edges_are_the_circuits_first_and_else_the_orders() -> None:
    run = planted_run("token", images=16)
    live = run.live()
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts, live.support)
    chosen = circuit(run.fit, top_k=8, rank="weight")
    found = edge_targets(live, chosen, None, order, OPTIONS)
    assert found.comparison == compare_edges(live, found.keys, 5, 4)
    assert found.keys == circuit_keys(live, chosen)[:3]
    assert found.keys == [(0, *path.key) for path in chosen.paths[:3]]
    assert edge_targets(live, None, None, order, OPTIONS).keys == order.keys(0, 3)
    none = edge_targets(live, chosen, None, order, replace(OPTIONS, edges=0))
    assert (none.keys, none.patches(live), none.measured(live, [])) == ([], [], [])


def test_records_carry_the_fits_numbers_and_the_live_effects() -> None:
    run = planted_run("token", images=16)
    live = run.live(run.features.heldout[:4])
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts, live.support)
    found = edge_targets(live, None, None, order, OPTIONS)
    records = found.measured(live, live.measure(found.patches(live)))
    assert len(records) == 3
    for record, (site, *key) in zip(records, found.keys, strict=True):
        assert site == 0
        assert tuple(record.key) == tuple(key)
        assert record.edge_effect == pytest.approx(abs(float(run.fit.prototypes[tuple(key)])))
        assert record.support == int(run.fit.support[key[0], key[2]])
        assert record.edge_pvalue == pytest.approx(float(run.fit.edge_pvalues[tuple(key)]))
        assert record.qvalue == pytest.approx(float(run.fit.edge_qvalues[tuple(key)]))
        assert record.testable != bool(run.fit.untestable[tuple(key)])
        assert record.live_effect is not None
        assert record.layer is None


class Compared:
    """A comparison whose results are known."""

    def results(self, _live: Any, _found: Any) -> tuple[list[float], list[float], list[float]]:
        return [-0.3, 0.2], [0.01, 0.02], [0.03, 0.04]


@pytest.mark.parametrize("tested", [True, False])
def test_live_tests_are_not_given_of_images_that_guided_clusters_have_seen(tested: bool) -> None:
    """One such layer is enough."""
    records: Any = [EFFECT, EFFECT]
    made = EdgeTargets(keys=[], effects=records, comparison=Compared())  # type: ignore[arg-type]
    sites = [SimpleNamespace(fit=SimpleNamespace(testable=each)) for each in (True, tested)]
    found = made.measured(SimpleNamespace(sites=sites), [])  # type: ignore[arg-type]
    assert [record.live_effect for record in found] == [-0.3, 0.2]
    assert [record.live_pvalue for record in found] == ([0.01, 0.02] if tested else [None, None])
    assert [record.live_qvalue for record in found] == ([0.03, 0.04] if tested else [None, None])


def test_the_first_edges_of_a_target_causal_file_come_before_the_circuit_s() -> None:
    run = planted_run("token", images=16)
    live = run.live()
    chosen = circuit(run.fit, top_k=8, rank="weight")
    target = target_causal(run.trace, run.features, run.fit, chosen, top_n=5, num_permutations=2)
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts, live.support)
    found = edge_targets(live, chosen, target, order, OPTIONS)
    assert found.effects == target.effects[:3]
    assert found.keys == [(0, *effect.key) for effect in target.effects[:3]]
    # As the circuit ranks them, where it has them.
    chosen.paths = [edge for edge in chosen.paths if edge.key != target.effects[0].key][::-1]
    found = edge_targets(live, chosen, target, order, OPTIONS)
    assert found.effects == target.effects[1:][::-1][:3]
    few = replace(OPTIONS, edges=5)
    assert edge_targets(live, chosen, target, order, few).effects[-1] == target.effects[0]
    assert edge_targets(live, None, target, order, OPTIONS).effects == target.effects[:3]


def test_an_edge_without_a_prototype_s_sign_or_of_a_single_image_keeps_its_fit_s_numbers() -> None:
    """Negative prototypes have an effect of their size; edges of several layers name theirs."""
    run = planted_run("token", images=16)
    live = run.live()
    lowest = order_edges("least", [-run.fit.prototypes], live.counts, live.support)
    (record, *_) = edge_targets(live, None, None, lowest, OPTIONS).effects
    assert record.edge_effect == -float(run.fit.prototypes[record.key]) > 0
    several: Any = SimpleNamespace(sites=[*live.sites, SimpleNamespace(fit=OTHER)])
    named = _bare_effect(several, (0, *record.key))
    assert (named.layer, named.next_layer) == (run.fit.layer, run.fit.next_layer)
    with pytest.raises(UsageError, match="edited are layers"):
        record_key(several, record)


def test_a_circuit_is_one_set_of_its_edges_and_none_where_it_has_none() -> None:
    run = planted_run("token", images=16)
    live = run.live()
    chosen = circuit(run.fit, top_k=3)
    found = circuit_set(live, chosen)
    assert found is not None
    assert {tuple(at) for at in found.tables[0].nonzero().tolist()} == {
        tuple(edge.key) for edge in chosen.paths
    }
    assert circuit_set(live, None) is circuit_set(live, replace(chosen, paths=[])) is None


def test_an_edge_of_a_layer_that_is_not_edited_is_refused() -> None:
    run = planted_run("token", images=16)
    live = run.live()
    chosen = circuit(run.fit, top_k=2, rank="weight")
    wrong = replace(chosen, paths=[replace(chosen.paths[0], layer=7)])
    with pytest.raises(UsageError, match="an edge of layer 7 was given; edited are layers 1"):
        circuit_keys(live, wrong)


def test_an_edge_between_clusters_is_of_the_entries_of_both() -> None:
    logits, labels = slow.random_case(0, B=8, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4)
    made = fit(trace, features, destination="cluster", num_permutations=1)
    live: Any = SimpleNamespace(sites=[SimpleNamespace(fit=made)])
    record = _bare_effect(live, (0, 1, 0, 3))
    assert record.support == slow.support(labels, 4, "cluster")[1, 3] != int(made.counts[1])
    assert (record.dst_cluster, record.dst_name) == (3, "cluster 3")
