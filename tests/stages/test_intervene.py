"""The stage: what it refuses, what it records, and what it may not see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted_run import PlantedRun, planted_run

from xaikit.artifacts.results import Intervention
from xaikit.errors import UsageError
from xaikit.interventions import Classifier
from xaikit.interventions.matching import spread_evenly
from xaikit.rankings.live import image_ids
from xaikit.stages.circuit import circuit
from xaikit.stages.intervene import InterveneOptions, intervene

FEW = InterveneOptions(
    rankings=("contrast", "weight"),
    shares=(0.01, 0.1, 1.0),
    band_shares=(0.1,),
    draws=3,
    edges=4,
    edge_draws=5,
    max_images=12,
)


@pytest.fixture(scope="module")
def run() -> PlantedRun:
    return planted_run("token", images=64, content_edges=0)


@pytest.fixture(scope="module")
def found(run: PlantedRun) -> Intervention:
    edges = circuit(run.fit, top_k=4, rank="contrast")
    classifier = Classifier(name="first three", logits=lambda out: out.embedding[:, :3])
    return intervene(
        run.tower,
        run.source,
        run.features,
        run.fit,
        trace=run.trace,
        circuit=edges,
        classifier=classifier,
        options=FEW,
    )


def test_the_artefact_has_a_curve_for_each_ranking_mode_and_metric(found: Intervention) -> None:
    seen = {(c["ranking"], c["mode"], c["metric"]) for c in found.curves}
    metrics = ("cosine", "kl", "margin", "accuracy")
    assert seen == {
        (ranking, mode, metric)
        for ranking in FEW.rankings
        for mode in ("remove", "keep")
        for metric in metrics
    }
    assert len(found.random) == 2 * len(metrics)
    assert set(found.full_effect) == set(metrics)
    for curve in found.curves:
        assert curve["shares"] == [0.01, 0.1, 1.0]
        assert {"destination", "ablation", "effects", "area_linear", "area_log"} <= set(curve)
    for band in found.random:
        assert {"mean", "low", "high", "shares"} <= set(band)
    assert found.heldout
    assert found.num_images == 12
    assert 0 < len(found.effects) <= 4
    assert all(e.live_effect is not None and e.live_qvalue is not None for e in found.effects)
    assert found.completeness["removed"] > found.completeness["random_high"]
    assert found.completeness["faithfulness"] > 0.3


def test_it_reads_back_as_it_was_written(found: Intervention, tmp_path) -> None:
    found.save(tmp_path / "intervene.json")
    again = Intervention.load(tmp_path / "intervene.json")
    assert again == found


def test_held_out_images_alone_are_measured(run: PlantedRun, found: Intervention) -> None:
    """What discovery images hold must not reach a curve of a ranking that is of the fit."""
    source = type(run.source)(run.source.images)
    load = source.load

    def guarded(i: int):
        assert i in run.features.heldout, f"image {i} is of the discovery half"
        return load(i)

    source.load = guarded
    again = intervene(run.tower, source, run.features, run.fit, trace=run.trace, options=FEW)
    assert again.curves == [c for c in found.curves if c["metric"] == "cosine"]


def test_without_a_holdout_the_artefact_says_so(run: PlantedRun) -> None:
    features = replace(run.features, heldout=[], discovery=list(range(64)))
    options = replace(FEW, draws=0, nodes=False, edges=0, modes=("remove",), max_images=4)
    found = intervene(run.tower, run.source, features, run.fit, trace=run.trace, options=options)
    assert not found.heldout
    assert found.random == []
    assert found.effects == []
    assert found.num_images == 4


def test_ids_come_from_the_trace_or_from_exactly_the_traced_images(run: PlantedRun) -> None:
    assert image_ids(run.source, run.features, run.trace) == run.trace.images
    assert image_ids(run.source, run.features, None) == run.trace.images
    other = planted_run("token", images=16, seed=1)
    with pytest.raises(UsageError, match="are not among the given images"):
        image_ids(other.source, run.features, None)
    same = planted_run("token", images=64, content_edges=0, seed=2)
    assert same.source.ids == run.source.ids
    with pytest.raises(UsageError, match="the names of those that were traced, and another"):
        image_ids(same.source, run.features, None)
    with pytest.raises(UsageError, match="was not made from this trace"):
        image_ids(run.source, run.features, other.trace)


def test_parts_of_other_runs_are_refused(run: PlantedRun) -> None:
    other = planted_run("token", images=16, seed=1)
    with pytest.raises(UsageError, match="the fit file was not made from this features file"):
        intervene(run.tower, run.source, other.features, run.fit, trace=other.trace)
    with pytest.raises(UsageError, match="the circuit file was not made from this fit"):
        intervene(
            run.tower,
            run.source,
            run.features,
            run.fit,
            trace=run.trace,
            circuit=circuit(other.fit, top_k=3),
            options=FEW,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rankings": ("size",)}, "rankings=size"),
        ({"rankings": ()}, "rankings=.*at least one"),
        ({"modes": ("turn",)}, "modes=turn"),
        ({"shares": (0.0,)}, "shares=0.0"),
        ({"draws": -1}, "draws=-1"),
        ({"max_images": 0}, "max_images=0"),
        ({"edge_draws": 0}, "edge_draws=0"),
    ],
)
def test_options_out_of_range_name_themselves(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        InterveneOptions(**options).checked()


def test_images_are_spread_evenly() -> None:
    assert spread_evenly([9, 1, 5], None) == [1, 5, 9]
    assert spread_evenly(range(100), 3) == [0, 50, 99]
    assert spread_evenly(range(4), 10) == [0, 1, 2, 3]


def test_the_seed_decides(run: PlantedRun, found: Intervention) -> None:
    again = intervene(
        run.tower, run.source, run.features, run.fit, trace=run.trace, options=replace(FEW, seed=1)
    )
    assert again.curves[0]["effects"] != found.curves[0]["effects"] or (
        again.random[0]["mean"] != found.random[0]["mean"]
    )
    assert torch.allclose(
        torch.tensor([c["area_log"] for c in again.curves]),
        torch.tensor([c["area_log"] for c in found.curves if c["metric"] == "cosine"]),
        atol=0.05,
    )
