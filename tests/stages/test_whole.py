"""Circuits of several layers: ranked together, edited together, and what they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from planted_layers import PlantedLayers, planted_layers
from planted_run import planted_run

from xaikit.artifacts.options import deciding
from xaikit.artifacts.results import Circuit, Intervention
from xaikit.errors import UsageError
from xaikit.interventions import (
    EdgeSet,
    Live,
    LiveOptions,
    Objective,
    full_patch,
    order_edges,
    order_patch,
    sets_patch,
)
from xaikit.interventions.edits import ablate
from xaikit.rankings.live import AimedScores, joint_scores
from xaikit.stages.graph import GraphLayer, graph, of_layer
from xaikit.stages.intervene import InterveneOptions, intervene_layers
from xaikit.stages.whole import whole_circuit
from xaikit.statistics.multiple import discovery_qvalues
from xaikit.testing import joint_auroc

OPTIONS = LiveOptions(batch_size=16, workers=1)
CHAIN = ((0, 2, 3), (4, 1, 0))
ONLY = {"token_edges": 0, "content_edges": 0, "chains": (CHAIN,)}


@pytest.fixture(scope="module")
def chained() -> PlantedLayers:
    """One chain of two edges and nothing else."""
    return planted_layers(**ONLY)


@pytest.fixture(scope="module")
def busy() -> PlantedLayers:
    """Two chains among other edges."""
    return planted_layers(token_edges=0, content_edges=2, chains=2, image=0.0)


def live_of(run: PlantedLayers, **options) -> Live:
    return Live(
        run.tower,
        run.source,
        run.parts,
        ids=run.ids,
        images=run.parts[0][0].heldout,
        options=replace(OPTIONS, **options),
    )


def planted_set(run: PlantedLayers) -> EdgeSet:
    tables = [
        torch.zeros(part[1].prototypes.shape, dtype=torch.bool)
        if truth is None
        else truth.edge_content
        for part, truth in zip(run.parts, run.truths, strict=True)
    ]
    return EdgeSet(tables=tuple(tables))


def test_planted_edges_of_all_layers_are_found_by_one_backward_pass(busy: PlantedLayers) -> None:
    scores = joint_scores(
        ["reach", "attribution"],
        busy.tower,
        busy.source,
        busy.parts,
        ids=busy.ids,
        options=OPTIONS,
    )
    assert sum(int(table.sum()) for table in planted_set(busy).tables) == 2 + 2 + 2
    for key, tables in scores.items():
        found = joint_auroc(tables, busy.truths, "cluster", busy.planted.spec.blank_group)
        assert found >= 0.99, key


def test_cutting_the_chain_anywhere_is_cutting_everything(chained: PlantedLayers) -> None:
    live = live_of(chained)
    both = planted_set(chained)
    ones = [
        EdgeSet(
            tables=tuple(
                table if place == kept else torch.zeros_like(table)
                for place, table in enumerate(both.tables)
            )
        )
        for kept in (1, 3)
    ]
    patches = [full_patch(live.shapes), sets_patch([both, *ones]), sets_patch([both], keep=True)]
    full, cut, keep = (found["cosine"].mean(1).tolist() for found in live.measure(patches))
    assert full[0] > 1e-3
    assert min(cut) > 0.7 * full[0]
    assert keep[0] < 0.15 * full[0]


def test_the_graph_of_a_chain_holds_exactly_its_path(chained: PlantedLayers) -> None:
    found = whole_circuit(
        chained.tower, chained.source, chained.parts, ids=chained.ids, top_k=2, options=OPTIONS
    ).circuit
    names = [
        {int(group): cluster for cluster, group in enumerate(truth.cluster_groups)}
        for truth in chained.truths
        if truth is not None
    ]
    expected = {
        (layer, head, own[group], own[goal])
        for layer, own, (group, head, goal) in zip((1, 3), names, CHAIN, strict=True)
    }
    assert {(e.layer, e.head, e.cluster_id, e.dst_cluster) for e in found.paths} == expected
    assert [edge.next_layer for edge in sorted(found.paths, key=lambda e: e.layer)] == [2, 4]
    layers = [
        GraphLayer(features=features, circuit=of_layer(found, features))
        for features, _ in chained.parts
    ]
    drawn = graph(layers, paths=True)
    (first, second), (low, high) = CHAIN, names
    ends = {
        f"1.{low[first[0]]}",
        f"1.{low[first[2]]}",
        f"3.{high[second[0]]}",
        f"3.{high[second[2]]}",
    }
    assert {node["id"] for node in drawn["nodes"]} == ends
    heads = [(e["source"], e["target"]) for e in drawn["edges"] if e["kind"] == "head"]
    assert set(heads) == {
        (f"1.{low[first[0]]}", f"1.{low[first[2]]}"),
        (f"3.{high[second[0]]}", f"3.{high[second[2]]}"),
    }
    flows = {(e["source"], e["target"]) for e in drawn["edges"] if e["kind"] == "flow"}
    # What the first edge reads is at its source tokens, which the second edge reads.
    assert (f"1.{low[first[0]]}", f"3.{high[second[2]]}") in flows


def test_a_joint_edit_is_the_edits_of_all_layers_in_one_forward_pass(busy: PlantedLayers) -> None:
    live = live_of(busy)
    order = order_edges(
        "zscore", [fit.discovery_zscores.abs() for _, fit in busy.parts], live.counts, live.support
    )
    found = live.measure([order_patch(order, [0.05])])[0]["cosine"][0]
    edges, slow = order.set_of(0.05), []
    for batch in live.batches():
        # Every layer is edited, those that the set does not touch with an empty mask.
        edits = {
            part.layer: ablate(
                edges.mask(place, part.labels, part.jitter, "cluster"),
                "mean",
                position_mean=part.position_mean,
            )
            for place, part in enumerate(batch.sites)
        }
        with torch.no_grad():
            slow.append(batch.effect(batch.cache.outputs(edits)))
    torch.testing.assert_close(found, torch.cat(slow), atol=1e-12, rtol=1e-6)


def test_layers_are_edited_lowest_first_in_whatever_order_they_are_given(
    busy: PlantedLayers,
) -> None:
    live = live_of(replace(busy, parts=busy.parts[::-1]))
    assert [site.layer for site in live.sites] == [fit.next_layer for _, fit in busy.parts]


def test_resampling_takes_the_clean_logits_of_the_partner_in_every_layer(
    chained: PlantedLayers,
) -> None:
    """In an upper layer too, where the batch's own logits have been changed by the edits below."""
    live = live_of(chained, ablation="resample", batch_size=6)
    places = {name: place for place, name in enumerate(chained.ids)}
    truth = chained.planted.images(48)
    done = 0
    for batch in live.batches():
        rows = [places[name] for name in live.partners[done : done + len(batch.images)]]
        done += len(batch.images)
        for stage, site in enumerate((1, 3)):
            expected = chained.planted.logits(truth, stage)[rows]
            torch.testing.assert_close(batch.partner_logits[site], expected, atol=3e-3, rtol=0)


@pytest.fixture(scope="module")
def measured(busy: PlantedLayers) -> tuple[Circuit, Intervention]:
    whole = whole_circuit(
        busy.tower, busy.source, busy.parts, ids=busy.ids, top_k=6, options=OPTIONS
    )
    options = InterveneOptions(
        rankings=("reach", "zscore"),
        shares=(0.005, 0.05, 1.0),
        band_shares=(0.05,),
        draws=4,
        edges=3,
        edge_draws=19,
        max_images=12,
        workers=1,
        other_ablations=("zero", "resample"),
    )
    found = intervene_layers(
        busy.tower,
        busy.source,
        busy.parts,
        ids=busy.ids,
        circuit=whole.circuit,
        scores=whole.scores,
        options=options,
    )
    return whole.circuit, found


def test_curves_are_over_the_entries_of_all_layers(measured: tuple[Circuit, Intervention]) -> None:
    circuit, found = measured
    assert found.layers == circuit.layers == [[layer, layer + 1] for layer in range(5)]
    seen = {(c["ranking"], c["mode"], c["ablation"]) for c in found.curves}
    assert seen == {
        (ranking, mode, ablation)
        for ranking in ("reach", "zscore")
        for mode in ("remove", "keep")
        for ablation in ("mean", "zero", "resample")
    }
    assert set(found.full_effects) == {"mean", "zero", "resample"}
    remove = next(c for c in found.curves if (c["ranking"], c["mode"]) == ("reach", "remove"))
    assert remove["fractions"][1] > 0.6
    keep = next(c for c in found.curves if (c["ranking"], c["mode"]) == ("reach", "keep"))
    assert keep["cmd"] < 0.1
    assert keep["cpr"] > 0.9
    assert found.chance["best"] in ("reach", "zscore")
    assert found.chance["pvalue"] <= 0.05
    assert found.completeness["edges"] == 6
    assert found.completeness["removed"] > 0.6
    assert {(e.layer, e.next_layer) for e in found.effects} <= {(1, 2), (3, 4)}
    assert all((e.live_effect or 0) > 0 for e in found.effects)
    assert {node["layer"] for node in found.clusters} == set(range(5))
    assert found.heldout


def test_records_of_several_layers_read_back(
    measured: tuple[Circuit, Intervention], tmp_path
) -> None:
    for made in measured:
        made.save(tmp_path / "made.json")
        assert type(made).load(tmp_path / "made.json") == made
    circuit, _ = measured
    record = circuit.to_dict()["paths"][0]
    assert (record["layer"], record["next_layer"]) in {(1, 2), (3, 4)}


def test_layers_that_do_not_belong_together_are_refused(busy: PlantedLayers) -> None:
    (features, fit), other = busy.parts[0], busy.parts[1]
    given = {"ids": busy.ids, "options": OPTIONS}

    def refused(parts: list, match: str) -> None:
        with pytest.raises(UsageError, match=match):
            whole_circuit(busy.tower, busy.source, parts, **given)

    refused([], "no layers")
    refused([(features, fit), (features, fit)], "both edit the attention of layer 1")
    refused([(features, other[1])], "the fit file was not made from this features file")
    turned = replace(features, discovery=features.heldout, heldout=features.discovery)
    refused([(turned, fit), other], "hold out different images")
    tokens = replace(fit, destination="token")
    refused([(features, tokens), other], "have edges to a token and to a cluster")
    with pytest.raises(UsageError, match="`top_k=0`"):
        whole_circuit(busy.tower, busy.source, busy.parts, top_k=0, **given)


def test_at_most_so_many_edges_with_a_small_q_value_over_all_layers(busy: PlantedLayers) -> None:
    found = whole_circuit(
        busy.tower,
        busy.source,
        busy.parts,
        ids=busy.ids,
        rank="zscore",
        top_k=500,
        max_qvalue=0.05,
        options=OPTIONS,
    ).circuit
    assert 0 < len(found.paths) < 500
    assert all(edge.score > 1.9 for edge in found.paths)


def test_edges_are_chosen_by_tests_of_the_discovery_images_and_counted_by_those_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two layers of which one has fewer test images, and one edge each that is significant."""
    run = planted_run("token", images=16)
    shape = run.fit.prototypes.shape
    parts = []
    for at, images in enumerate((8, 5)):
        p = run.features.provenance
        place = {"layer": p.layer + at, "next_layer": p.next_layer + at}
        tests = {name: torch.ones(shape).double() for name in ("chosen", "held")}
        tests["chosen"][at, 0, 3], tests["held"][at, 1, 4 : 6 + at] = 1e-9, 1e-9
        own = replace(
            run.fit,
            provenance=replace(run.fit.provenance, **place),
            discovery_pvalues=tests["chosen"],
            edge_pvalues=tests["held"],
            edge_qvalues=tests["held"],
            num_test_images=images,
        )
        parts.append((replace(run.features, provenance=replace(p, **place)), own))
    tables = tuple(torch.rand(shape) for _ in parts)
    known = AimedScores(scores={}, sizes=tables, effects=None, objective=Objective())
    monkeypatch.setattr("xaikit.stages.whole.aimed_scores", lambda *_, **__: known)

    def found(given: list, **options: Any) -> Circuit:
        return whole_circuit(run.tower, run.source, given, ids=run.trace.images, **options).circuit

    one = found(parts[::-1], max_qvalue=0.05)
    keys = {(edge.layer, *edge.key) for edge in one.paths}
    layer = run.fit.layer
    assert keys == {(layer, 0, 0, 3), (layer + 1, 1, 0, 3)}
    assert (one.significant, one.num_test_images, one.heldout) == (5, 5, True)
    occupied = int((run.fit.support > 0).sum()) * shape[1]
    assert one.tested == 2 * occupied
    in_sample = replace(parts[1][1], heldout=False, num_test_images=16)
    assert not found([parts[0], (parts[1][0], in_sample)]).heldout
    guided = replace(parts[1][1], method="guided", heldout=False)
    assert found([parts[0], (parts[1][0], guided)]).significant is None


def test_what_was_asked_for_reaches_the_scores_and_the_circuit_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = planted_run("cluster", images=16)
    parts, asked = [(run.features, run.fit)], {}
    shape = run.fit.prototypes.shape
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(shape, generator=generator)
    aim = Objective(kind="toward", toward="red", value=lambda out, *_: out.embedding[:, 0])

    def scored(*given: Any, **more: Any) -> AimedScores:
        asked.update(more, rank=given[0])
        return AimedScores(
            scores={"attribution": (effects,)},
            sizes=(effects.abs(),),
            effects=(effects,),
            objective=aim,
        )

    monkeypatch.setattr("xaikit.stages.whole.aimed_scores", scored)
    options = LiveOptions(ig_steps=3, seed=4)
    given = {"classifier": "a classifier", "objective": aim, "images": [2, 4], "options": options}
    found = whole_circuit(
        run.tower, run.source, parts, ids=["x"], rank="attribution", top_k=7, **given
    )
    assert asked | given == asked
    assert (asked["rank"], asked["ids"]) == ("attribution", ["x"])
    assert found.scores == {"attribution": (effects,)}
    made = found.circuit
    sizes = [edge.score for edge in made.paths]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(float(effects.abs().max()))
    for edge in made.paths:
        assert edge.effect == float(effects[edge.key])
        assert edge.side == ("for" if edge.effect > 0 else "against")
    assert (made.objective, made.destination) == (aim.record(), "cluster")
    assert made.provenance.parents[f"fit_{run.fit.layer}"] == run.fit.identity
    record = {"top_k": 7, "rank": "attribution", "max_qvalue": None}
    assert made.provenance.options == {**record, **deciding(options)}
    # An edge at the limit is kept, and the limit said.
    qvalues = discovery_qvalues(run.fit)
    limit = float(qvalues.flatten().sort().values[5])
    just = whole_circuit(run.tower, run.source, parts, ids=[], top_k=10**6, max_qvalue=limit)
    assert len(just.circuit.paths) == int(
        ((qvalues <= limit) & (run.fit.support[:, None] > 0)).sum()
    )
    assert just.circuit.max_qvalue == just.circuit.provenance.options["max_qvalue"] == limit
    with pytest.raises(UsageError, match="ig_steps=0"):
        whole_circuit(run.tower, run.source, parts, ids=[], options=LiveOptions(ig_steps=0))
