"""Which single edges are tested, and what their records say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planted_run import planted_run

from xaikit.errors import UsageError
from xaikit.interventions import circuit_keys, edge_targets, order_edges
from xaikit.stages.circuit import circuit

GIVEN = {"count": 3, "draws": 5, "seed": 0}


def test_edges_are_the_circuits_first_and_else_the_orders() -> None:
    run = planted_run("token", images=16)
    live = run.live()
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts, live.support)
    chosen = circuit(run.fit, top_k=8, rank="weight")
    found = edge_targets(live, chosen, None, order, **GIVEN)
    assert found.keys == circuit_keys(live, chosen)[:3]
    assert found.keys == [(0, *path.key) for path in chosen.paths[:3]]
    assert edge_targets(live, None, None, order, **GIVEN).keys == order.keys(0, 3)
    none = edge_targets(live, chosen, None, order, **(GIVEN | {"count": 0}))
    assert (none.keys, none.patches(live), none.measured(live, [])) == ([], [], [])


def test_records_carry_the_fits_numbers_and_the_live_effects() -> None:
    run = planted_run("token", images=16)
    live = run.live(run.features.heldout[:4])
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts, live.support)
    found = edge_targets(live, None, None, order, **GIVEN)
    records = found.measured(live, live.measure(found.patches(live)))
    assert len(records) == 3
    for record, (site, *key) in zip(records, found.keys, strict=True):
        assert site == 0
        assert tuple(record.key) == tuple(key)
        assert record.edge_effect == pytest.approx(abs(float(run.fit.prototypes[tuple(key)])))
        assert record.support == int(run.fit.support[key[0], key[2]])
        assert record.live_effect is not None
        assert record.layer is None


def test_an_edge_of_a_layer_that_is_not_edited_is_refused() -> None:
    run = planted_run("token", images=16)
    live = run.live()
    chosen = circuit(run.fit, top_k=2, rank="weight")
    wrong = replace(chosen, paths=[replace(chosen.paths[0], layer=7)])
    with pytest.raises(UsageError, match="an edge of layer 7 was given; edited are layers 1"):
        circuit_keys(live, wrong)
