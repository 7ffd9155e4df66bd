"""What effects are measured on, and which edges push for it or against it."""

from __future__ import annotations

import pytest
import torch
from planted_run import PlantedRun, planted_run

from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.interventions import (
    EMBEDDING,
    Classifier,
    LiveOptions,
    Objective,
    full_patch,
    objective_for,
)
from xaikit.interventions.classifiers import classifier_for
from xaikit.rankings import score
from xaikit.rankings.gradients import attributed, edge_sums
from xaikit.stages.intervene import InterveneOptions, intervene
from xaikit.towers import Outputs, Tower, load_tower, text_features


@pytest.fixture(scope="module")
def demo() -> Tower:
    return load_tower("xaikit-demo", with_text=True)


@pytest.fixture(scope="module")
def headed() -> Tower:
    return load_tower("timm/vit_tiny_patch16_224", "random")


def outputs(seed: int, classes: int | None = None) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    logits = None if classes is None else torch.randn(3, classes, generator=generator)
    return Outputs(embedding=torch.randn(3, 64, generator=generator), class_logits=logits)


def test_the_embedding_objective_is_the_distance_and_has_no_sign() -> None:
    clean, edited = outputs(0), outputs(1)
    expected = 1 - torch.cosine_similarity(clean.embedding.double(), edited.embedding.double())
    torch.testing.assert_close(EMBEDDING.effect(clean, edited, [0, 1, 2]), expected)
    assert (EMBEDDING.signed, EMBEDDING.metric) == (False, "cosine")


def test_a_direction_is_a_difference_of_cosines(demo: Tower) -> None:
    width = text_features(demo, ["red"]).shape[1]
    found = objective_for("embedding", demo, toward="top red circle", against="top blue circle")
    assert (found.kind, found.signed, found.metric) == ("toward", True, "toward")
    generator = torch.Generator().manual_seed(0)
    before, after = (
        Outputs(embedding=torch.randn(3, width, generator=generator), class_logits=None)
        for _ in range(2)
    )
    red, blue = text_features(demo, ["top red circle", "top blue circle"])
    sides = [
        torch.cosine_similarity(each.embedding, red[None])
        - torch.cosine_similarity(each.embedding, blue[None])
        for each in (before, after)
    ]
    effect = found.effect(before, after, [0, 1, 2])
    torch.testing.assert_close(effect.float(), sides[0] - sides[1], atol=1e-6, rtol=1e-5)
    alone = objective_for("embedding", demo, toward="top red circle")
    fall = alone.effect(before, after, [0, 1, 2]).float()
    own = [torch.cosine_similarity(each.embedding, red[None]) for each in (before, after)]
    torch.testing.assert_close(fall, own[0] - own[1], atol=1e-6, rtol=1e-5)
    assert found.record() == {
        "kind": "toward",
        "toward": "top red circle",
        "against": "top blue circle",
    }


def test_classes_of_a_head_are_named_or_numbered(headed: Tower) -> None:
    names = [f"class {index}" for index in range(1000)]
    known = Classifier(name="head", logits=lambda out: out.class_logits, names=names)
    clean, edited = outputs(0, 1000), outputs(1, 1000)
    by_name = objective_for("embedding", headed, known, toward="Class 7", against="class 9")
    by_index = objective_for("embedding", headed, toward="7", against="9")
    by_word = objective_for("embedding", headed, toward="Goldfish", against="134")
    assert (by_word.classes, by_word.toward) == ((1, 134), "goldfish")
    # Two classes are called crane.
    assert objective_for("embedding", headed, toward=by_word.against).classes == (134,)
    both = [each.effect(clean, edited, [0, 1, 2]) for each in (by_name, by_index)]
    torch.testing.assert_close(both[0], both[1])
    fall = [out.class_logits[:, 7] - out.class_logits[:, 9] for out in (clean, edited)]
    torch.testing.assert_close(both[0].float(), fall[0] - fall[1])
    alone = objective_for("embedding", headed, toward="7").effect(clean, edited, [0, 1, 2])
    margins = []
    for out in (clean, edited):
        others = torch.cat([out.class_logits[:, :7], out.class_logits[:, 8:]], dim=1)
        margins.append(out.class_logits[:, 7] - others.amax(1))
    torch.testing.assert_close(alone.float(), margins[0] - margins[1])


def test_what_names_no_objective_is_refused(demo: Tower, headed: Tower) -> None:
    names = ["crane", "crane", *map(str, range(998))]
    known = Classifier(name="head", logits=lambda out: out.class_logits, names=names)
    bare = load_tower("xaikit-demo")

    def refused(match: str, *args: object, **given: str) -> None:
        with pytest.raises(UsageError, match=match):
            objective_for(*args, **given)  # type: ignore[arg-type]

    refused("`objective=loss`: expected embedding or margin", "loss", demo)
    refused("`objective=margin` needs classes", "margin", demo)
    refused("`against=TEXT` needs `toward=", "embedding", demo, against="a")
    refused("exclude each other", "margin", demo, toward="a")
    refused("`toward=` is empty", "embedding", demo, toward=" ")
    refused("no text tower and no head", "embedding", bare, toward="a")
    refused("`against=1000`: is no class", "embedding", headed, toward="1", against="1000")
    refused("`toward=godfish`: .* such as goldfish", "embedding", headed, toward="godfish")
    refused("crane`: names several classes", "embedding", headed, known, toward="crane")


def pull(run: PlantedRun, edge: int) -> Objective:
    """How much an image's embedding shows of one planted edge."""

    def value(out: Outputs, _clean: Outputs, _images: object) -> torch.Tensor:
        return out.embedding[:, 1 + run.planted.spec.groups + edge].double()

    return Objective(kind="toward", toward="an edge", value=value)


def test_effects_of_a_scalar_have_a_sign_and_edges_their_side() -> None:
    run = planted_run("token", images=64, content_edges=0)
    first, second = run.planted.token_edges[:2]

    def value(out: Outputs, _clean: Outputs, _images: object) -> torch.Tensor:
        shown = out.embedding[:, 1 + run.planted.spec.groups :].double()
        return shown[:, 0] - shown[:, 1]

    objective = Objective(kind="toward", toward="first", against="second", value=value)
    live = run.live(run.features.discovery, objective=objective)
    (scores,) = score("attribution", live)
    flat = scores.reshape(-1)
    space = run.fit.space
    assert space.key(int(flat.argmax())) == tuple(first)
    assert space.key(int(flat.argmin())) == tuple(second)
    (sizes,) = score("reach", live)
    top = {space.key(int(place)) for place in sizes.reshape(-1).argsort(descending=True)[:2]}
    assert top == {tuple(first), tuple(second)}

    options = InterveneOptions(
        rankings=("attribution", "reach"),
        shares=(0.01, 1.0),
        draws=2,
        band_shares=(0.1,),
        edges=0,
        nodes=False,
        max_images=12,
    )
    found = intervene(
        run.tower,
        run.source,
        run.features,
        run.fit,
        trace=run.trace,
        objective=objective,
        options=options,
    )
    curves = {
        (c["ranking"], c.get("side", "")): c["effects"][0]
        for c in found.curves
        if (c["mode"], c["metric"]) == ("remove", "toward")
    }
    assert set(curves) == {("attribution", "for"), ("attribution", "against"), ("reach", "")}
    assert curves["attribution", "for"] > 0 > curves["attribution", "against"]
    assert found.objective["against"] == "second"
    assert found.chance["metric"] == "toward"
    assert (found.chance["best"], found.chance["side"]) == ("attribution", "for")


def test_reach_of_a_scalar_is_the_size_of_each_images_slope() -> None:
    run = planted_run("token", images=64, content_edges=0)
    live = run.live(run.features.discovery[:6], objective=pull(run, 0), batch_size=4)
    expected = torch.zeros(live.shapes[0], dtype=torch.float64)
    for batch in live.batches():
        (values,) = attributed(batch, 0.5)
        expected += edge_sums(values.double(), batch.sites[0]).abs().sum(0)
    expected /= live.counts[0][:, None, :].clamp(min=1)
    torch.testing.assert_close(score("reach", live)[0], expected, atol=1e-9, rtol=1e-4)


def test_the_margin_stays_that_of_the_class_that_the_clean_model_gives(demo: Tower) -> None:
    def logits(found: Outputs) -> torch.Tensor:
        assert found.class_logits is not None
        return found.class_logits

    clean, edited = (
        Outputs(embedding=torch.zeros(2, 4), class_logits=torch.tensor(rows))
        for rows in ([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]], [[1.0, 4.0, 0.0], [0.0, 2.0, 1.5]])
    )
    aim = objective_for("margin", demo, Classifier(name="made up", logits=logits))
    assert aim.effect(clean, edited, [0, 1]).tolist() == [2.0 + 3.0, 1.0 - 0.5]


def test_the_margin_is_that_of_the_classifier() -> None:
    run = planted_run("token", images=64, content_edges=0)
    targets = torch.arange(64) % 3
    classifier = Classifier(
        name="first three", logits=lambda out: out.embedding[:, 1:4], targets=targets
    )
    live = run.live(run.features.heldout[:5], classifier=classifier, batch_size=2, objective=None)
    assert live.objective is EMBEDDING
    own = run.live(
        run.features.heldout[:5],
        classifier=classifier,
        batch_size=2,
        objective=objective_for("margin", run.tower, classifier),
    )
    found = own.measure([full_patch(own.shapes)])[0]
    effects = []
    for batch in own.batches():
        with torch.no_grad():
            edited = batch.cache.outputs(next(iter(full_patch(own.shapes).edits(batch))))
        effects.append(batch.effect(edited))
    torch.testing.assert_close(found["margin"][0], torch.cat(effects))
    assert own.metrics == ("cosine", "kl", "margin", "accuracy")


def test_options_name_the_objective(demo: Tower) -> None:
    from xaikit.interventions import chosen_objective

    given = LiveOptions(toward="top red circle", against="top blue circle")
    assert chosen_objective(demo, given, None).against == "top blue circle"
    source = SceneSource(4)
    classifier = classifier_for(demo, source, None, source.ids)
    assert classifier is not None
    assert "top red circle" in classifier.names
    assert chosen_objective(demo, LiveOptions(objective="margin"), classifier).kind == "margin"
