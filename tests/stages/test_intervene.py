"""The stage: what it refuses, what it records, and what it may not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from conftest import ORIGIN
from planted_run import PlantedRun, planted_run

from xaikit.artifacts.options import deciding
from xaikit.artifacts.records import Provenance
from xaikit.artifacts.results import Intervention
from xaikit.errors import UsageError
from xaikit.interventions import Classifier, Objective
from xaikit.interventions.matching import spread_evenly
from xaikit.rankings.live import image_ids
from xaikit.stages import intervene as module
from xaikit.stages.circuit import circuit
from xaikit.stages.intervene import InterveneOptions, intervene
from xaikit.stages.target_causal import target_causal

AIM = Objective()
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
    given = (run.features, run.fit)
    with pytest.raises(UsageError, match="a model is expected as a tower, not as str"):
        intervene("a model", run.source, *given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="features file was not made from this trace"):
        intervene(run.tower, run.source, *given, trace=other.trace)
    chosen = circuit(other.fit, top_k=1)
    target = target_causal(other.trace, other.features, other.fit, chosen, num_permutations=1)
    with pytest.raises(UsageError, match="the target-causal file was not made from this fit"):
        intervene(run.tower, run.source, *given, trace=run.trace, target=target, options=FEW)
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
        ({"modes": ()}, "modes=.*at least one"),
        ({"against": "red"}, "`against=TEXT` needs `toward=TEXT`"),
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


class Known:
    """A live model of which only what it was made with is known."""

    made: ClassVar[list[Known]] = []

    def __init__(self, *parts: Any, **given: Any) -> None:
        self.given, self.parts = given, parts
        self.tower, self.source = parts[:2]
        self.ids, self.images, self.options = (given[name] for name in ("ids", "images", "options"))
        self.objective, self.classifier = given["objective"], given["classifier"]
        self.partners, self.destination, self.metrics, self.shapes = ["p"], "cluster", ("kl",), ()
        self.made.append(self)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stage hands on to what runs the model."""
    seen: dict[str, Any] = {"alone": []}
    Known.made.clear()

    class Measured:
        def __init__(self, live: Any, plan: Any, edges: Any, circuit: Any, *, nodes: bool) -> None:
            seen.update(live=live, plan=plan, circuit=circuit, nodes=nodes)

        def fields(self, _progress: Any) -> dict[str, Any]:
            return {"full_effect": {"cosine": 0.5}, "curves": ["own"], "random": [], "effects": []}

    def alone(live: Any, orders: Any, _plan: Any, _progress: Any) -> tuple[dict, list]:
        seen["alone"].append((live.options.ablation, orders))
        return {"cosine": 0.25}, [live.options.ablation]

    def scored(rankings: Any, *_: Any, **given: Any) -> dict[str, str]:
        seen["scored"] = (list(rankings), given)
        return {key: f"scores of {key}" for key in rankings}

    def targets(*given: Any) -> None:
        seen["targets"] = given

    monkeypatch.setattr(module, "Live", Known)
    monkeypatch.setattr(module, "Measurement", Measured)
    monkeypatch.setattr(module, "curves_alone", alone)
    monkeypatch.setattr(module, "joint_scores", scored)
    monkeypatch.setattr(module, "edge_targets", targets)
    monkeypatch.setattr(module, "orders_of", lambda key, scores, _live: [(key, scores)])
    provenance = Provenance(origin=ORIGIN, layer=2, next_layer=3)

    def joined(_fits: Any, options: dict[str, Any], _circuit: Any) -> Provenance:
        return replace(provenance, options=options)

    monkeypatch.setattr(module, "joint_provenance", joined)
    return seen


def test_what_was_asked_for_reaches_the_live_model(asked: dict[str, Any]) -> None:
    features: Any = SimpleNamespace(test_images=[1, 3, 5, 7], heldout=[1, 3, 5, 7])
    fit: Any = SimpleNamespace(layer=2, next_layer=3)
    aim = Objective(kind="toward", toward="red", value=lambda out, *_: out.embedding[:, 0])
    classes = Classifier(name="made up", logits=lambda out: out.embedding)
    options = InterveneOptions(
        rankings=("reach", "weight"),
        modes=("keep",),
        shares=(0.5, 0.1),
        band_shares=(0.2,),
        draws=6,
        edges=4,
        edge_draws=9,
        seed=11,
        max_images=3,
        nodes=False,
        other_ablations=("zero", "resample"),
        ablation="knockout",
    )
    found = module.intervene_layers(
        "tower",  # type: ignore[arg-type]
        "source",  # type: ignore[arg-type]
        [(features, fit)],
        ids=[str(at) for at in range(9)],
        objective=aim,
        classifier=classes,
        pairs={"1": "2"},
        scores={"weight": ("known",)},  # type: ignore[dict-item]
        options=options,
    )
    assert [live.options.ablation for live in Known.made] == ["knockout", "zero", "resample"]
    assert all(live.images == [1, 5, 7] or live.images == [1, 3, 7] for live in Known.made)
    assert {id(live.given["pairs"]) for live in Known.made} == {id(Known.made[0].given["pairs"])}
    assert Known.made[0].given["pairs"] == {"1": "2"}
    assert all(live.objective is aim for live in Known.made)
    assert all(live.classifier is classes for live in Known.made)
    orders = [("reach", "scores of reach"), ("weight", ("known",))]
    assert asked["scored"][0] == ["reach"]
    assert asked["scored"][1]["objective"] is aim
    assert asked["scored"][1]["classifier"] is classes
    plan = asked["plan"]
    assert (plan.orders, plan.modes, plan.draws, plan.seed) == (orders, ("keep",), 6, 11)
    assert (plan.shares, plan.band_shares) == ((0.1, 0.5, 1.0), (0.2,))
    _live, *none, first, given = asked["targets"]
    assert (none, first) == ([None, None], orders[0])
    assert (given.edges, given.edge_draws, given.seed) == (4, 9, 11)
    assert (asked["circuit"], asked["nodes"]) == (None, False)
    assert asked["alone"] == [("zero", orders), ("resample", orders)]
    assert found.curves == ["own", "zero", "resample"]
    assert found.full_effects == {
        "knockout": {"cosine": 0.5},
        "zero": {"cosine": 0.25},
        "resample": {"cosine": 0.25},
    }
    assert (found.ablation, found.partners, found.heldout) == ("knockout", ["p"], True)
    assert (found.num_images, found.layers) == (3, [])
    assert (found.metrics, found.classifier, found.destination) == (["kl"], "made up", "cluster")
    assert found.objective == aim.record()
    assert found.provenance.options == deciding(options.checked())


def test_the_margin_is_that_of_the_given_classifier(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    features: Any = SimpleNamespace(test_images=[1], heldout=[1])
    fit: Any = SimpleNamespace(layer=2, next_layer=3)
    classes = Classifier(name="made up", logits=lambda out: out.embedding)
    monkeypatch.setattr(module, "chosen_objective", lambda *given: asked.update(aim=given) or AIM)
    module.intervene_layers(
        "tower",  # type: ignore[arg-type]
        "source",  # type: ignore[arg-type]
        [(features, fit)],
        ids=["a", "b"],
        classifier=classes,
        options=InterveneOptions(objective="margin"),
    )
    tower, options, given = asked["aim"]
    assert (tower, options.objective, given) == ("tower", "margin", classes)
    assert Known.made[0].objective is AIM


def test_one_layer_is_handed_on_as_it_was_given_and_its_files_are_named(
    run: PlantedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def layers(*given: Any, **more: Any) -> Any:
        seen.update(more, given=given)
        return SimpleNamespace()

    monkeypatch.setattr(module, "intervene_layers", layers)
    features = replace(run.features, path=Path("of/features.safetensors"))
    fit = replace(run.fit, path=Path("of/fit.safetensors"))
    edges = circuit(fit, top_k=3)
    edges.path = Path("of/circuit.json")
    target = target_causal(run.trace, features, fit, edges, top_n=2, num_permutations=1)
    more = {"circuit": edges, "target": target, "pairs": {"a": "b"}, "options": FEW}
    more |= {"classifier": "a classifier", "objective": "an objective", "progress": print}
    found: Any = intervene(run.tower, run.source, features, fit, trace=run.trace, **more)
    assert seen.pop("given") == (run.tower, run.source, [(features, fit)])
    assert seen == {**more, "ids": run.trace.images}
    assert found.features_file == "of/features.safetensors"
    assert (found.fit_file, found.circuit_file) == ("of/fit.safetensors", "of/circuit.json")
    assert intervene(run.tower, run.source, features, fit).circuit_file == ""


def test_both_modes_are_asked_for_in_a_word_and_the_best_ranking_is_the_first() -> None:
    assert module._modes("both") == InterveneOptions().modes == ("remove", "keep")
    assert module._modes("keep") == ("keep",)
    assert InterveneOptions().rankings[0] == "reach"


def test_without_held_out_images_all_are_tested(asked: dict[str, Any]) -> None:
    features: Any = SimpleNamespace(test_images=[], heldout=[])
    fit: Any = SimpleNamespace(layer=2, next_layer=3)
    given = {"ids": ["a", "b", "c"], "options": InterveneOptions(rankings=("weight",))}
    parts = [(features, fit), (features, SimpleNamespace(layer=4, next_layer=5))]
    for part in parts:
        part[0].layer, part[0].next_layer = part[1].layer, part[1].next_layer
    found = module.intervene_layers("t", "s", parts, objective=Objective(), **given)  # type: ignore[arg-type]
    assert Known.made[0].images == [0, 1, 2]
    assert not found.heldout
    assert (
        module.intervene_layers(
            "t",
            "s",
            parts,
            objective=Objective(),
            images=[2, 0],
            **given,  # type: ignore[arg-type]
        ).num_images
        == 2
    )
    assert Known.made[-1].images == [0, 2]
