"""One image explained: its clusters, its own edges, and tests on views that chose nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.tables import tables
from xaikit.errors import OptionError, UsageError
from xaikit.images.scenes import SceneSource
from xaikit.images.views import Views, find_image
from xaikit.interventions import MODES, Classifier, Live, Objective, Order
from xaikit.interventions.covers import join_tables
from xaikit.passes.labels import label_images
from xaikit.rankings import score
from xaikit.stages import explain as module
from xaikit.stages.cluster import cluster
from xaikit.stages.explain import ExplainOptions, explain
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

OPTIONS = ExplainOptions(
    views=4, shares=(0.1, 1.0), band_shares=(0.1,), draws=3, edges=2, edge_draws=3, top_k=5
)
IMAGE = "demo/0/000006"
"""A discovery image of the run."""


@pytest.fixture(scope="module")
def run():
    tower, source = load_tower("xaikit-demo"), SceneSource(16, 0)
    traces = trace_layers(tower, source, [(0, 1), (2, 3)])
    parts = []
    for traced, method in zip(traces, ("kmeans", "guided"), strict=True):
        features = cluster(traced, num_clusters=5, sample_tokens=0, holdout=0.5, method=method)
        found = fit(traced, features, destination="cluster", num_permutations=2, controls=False)
        parts.append((features, found))
    return tower, source, parts


@pytest.fixture(scope="module")
def explained(run) -> Explanation:
    tower, source, parts = run
    image = find_image(source, IMAGE)
    # Layers come lowest first, in whatever order they are given.
    given = {"name": IMAGE, "ids": source.ids, "rank": "reach", "options": OPTIONS}
    return explain(tower, source, parts[::-1], image, **given)


def test_an_image_of_the_run_has_the_clusters_that_the_run_gave_it(run, explained) -> None:
    tower, source, parts = run
    labels = label_images(tower, source, [features for features, _ in parts], batch_size=5)
    for own, (features, _) in zip(labels, parts, strict=True):
        assert torch.equal(own, features.labels)
    shown = [features.labels[6].tolist() for features, _ in parts]
    assert explained.labels == shown
    assert explained.layers == [[0, 1], [2, 3]]


def test_edges_of_a_direction_have_sides_whatever_they_are_ranked_by(run) -> None:
    tower, source, parts = run
    value = Objective(kind="toward", value=lambda out, *_: out.embedding[:, 0].double())
    given = {"name": IMAGE, "ids": source.ids, "rank": "reach", "objective": value}
    options = replace(OPTIONS, edges=0, draws=0, shares=(0.1,))
    image = find_image(source, IMAGE)
    found = explain(tower, source, parts, image, options=options, **given)
    both = [*found.edges, *found.common_edges]
    assert {edge.side for edge in both} == {"for", "against"}
    effects = {(edge.layer, edge.key): edge.effect for edge in found.common_edges}
    shared = [edge for edge in found.edges if (edge.layer, edge.key) in effects]
    assert shared
    assert all(edge.effect == effects[edge.layer, edge.key] for edge in shared)


def test_what_is_measured_is_measured_on_the_views_that_chose_nothing(run, explained) -> None:
    tower, source, parts = run
    views = Views(find_image(source, IMAGE), OPTIONS.views, OPTIONS.seed)
    assert not set(explained.choosing) & set(explained.tested)
    whole = [np.asarray(views.load(view)) for view in range(len(views))]
    assert np.array_equal(whole[2], whole[0][:, ::-1])
    labels = label_images(tower, views, [features for features, _ in parts])
    own = [
        (replace(features, labels=table), fitted)
        for (features, fitted), table in zip(parts, labels, strict=True)
    ]
    live = Live(tower, views, own, ids=views.ids, images=[2, 3])
    # The slow definition: each test view by itself, all logits at their position's mean.
    falls = []
    for batch in live.batches():
        edits = {
            part.layer: lambda _call, logits, mean=part.position_mean: mean.expand_as(logits)
            for part in batch.sites
        }
        edited, clean = batch.cache.outputs(edits).embedding, batch.clean.embedding
        falls += (1 - torch.cosine_similarity(edited.double(), clean.double())).tolist()
    assert explained.full_effect["cosine"] == pytest.approx(np.mean(falls), rel=1e-4)
    assert {(c["ranking"], c["mode"]) for c in explained.curves} == {
        (order, mode) for order in ("own", "common") for mode in ("remove", "keep")
    }


def first_edges(live: Live, tables, count: int) -> list[tuple]:
    """The best edges that the images of `live` have entries of: layer, key and score."""
    found = [
        (float(table[k, h, j]), site.fit.layer, (k, h, j))
        for site, table, counts in zip(live.sites, tables, live.counts, strict=True)
        for k, h, j in np.ndindex(*table.shape)
        if counts[k, j] > 0
    ]
    best = sorted(found, key=lambda each: -each[0])[:count]
    return [(layer, key, pytest.approx(score, rel=1e-5)) for score, layer, key in best]


def test_the_own_order_is_chosen_on_the_first_half_and_the_common_one_without_the_image(
    run, explained
) -> None:
    tower, source, parts = run
    views = Views(find_image(source, IMAGE), OPTIONS.views, OPTIONS.seed)
    labels = label_images(tower, views, [features for features, _ in parts])
    own = [
        (replace(features, labels=table), fitted)
        for (features, fitted), table in zip(parts, labels, strict=True)
    ]
    choosing = Live(tower, views, own, ids=views.ids, images=[0, 1], options=OPTIONS)
    assert explained.choosing == views.ids[:2]
    shown = [(edge.layer, edge.key, edge.score) for edge in explained.edges]
    assert shown == first_edges(choosing, score("reach", choosing), 5)
    others = [row for row in parts[0][0].discovery if source.ids[row] != IMAGE]
    assert len(others) == len(parts[0][0].discovery) - 1
    assert explained.common_images == len(others)
    common = Live(tower, source, parts, ids=source.ids, images=others, options=OPTIONS)
    shown = [(edge.layer, edge.key, edge.score) for edge in explained.common_edges]
    assert shown == first_edges(choosing, score("reach", common), 5)


def test_the_common_order_is_of_discovery_images_other_than_the_one_explained(run) -> None:
    _, source, ((features, _), _) = run
    own = features.discovery[2]
    left = [row for row in features.discovery if row != own]
    assert module._others(features, source.ids, source.ids[own], None) == left
    assert module._others(features, source.ids, "elsewhere.png", None) == features.discovery
    assert set(module._others(features, source.ids, source.ids[own], 3)) < set(left)
    with pytest.raises(UsageError, match="no other image"):
        module._others(replace(features, discovery=[own]), source.ids, source.ids[own], None)


class Known(Exception):  # noqa: N818
    """The orders are there."""


@pytest.fixture
def orders(monkeypatch) -> list[Order]:
    """What an explanation would measure, which ends with `Known` in place of measuring it."""
    found: list[Order] = []

    def stopped(_options, planned, _modes):
        found.extend(planned)
        raise Known

    monkeypatch.setattr(ExplainOptions, "plan", stopped)
    return found


def test_edges_that_the_choosing_views_have_no_entries_of_come_last(run, plain, orders) -> None:
    tower, source, parts = run
    image, choosing = plain
    options = replace(OPTIONS, rank="attribution")
    with pytest.raises(Known):
        explain(tower, source, parts, image, name="x", ids=source.ids, options=options)
    tables = [
        (counts > 0)[:, None].expand(shape)
        for counts, shape in zip(choosing.counts, choosing.shapes, strict=True)
    ]
    there = join_tables(tables)[orders[0].ranked]
    assert orders[0].key == "own"
    assert 0 < int(there.sum()) < len(there)
    assert there[: int(there.sum())].all()


def test_the_common_order_that_is_measured_is_that_of_the_scores_it_is_given(
    run, plain, orders
) -> None:
    tower, source, parts = run
    image, choosing = plain
    given = [torch.rand(shape, generator=torch.manual_seed(0)) for shape in choosing.shapes]
    options = replace(OPTIONS, rank="attribution")
    with pytest.raises(Known):
        explain(
            tower, source, parts, image, name="x", ids=source.ids, scores=given, options=options
        )
    common = next(order for order in orders if order.key == "common")
    ranked = join_tables(given)[common.ranked]
    covered = join_tables(
        [
            (counts > 0)[:, None].expand(shape)
            for counts, shape in zip(choosing.counts, choosing.shapes, strict=True)
        ]
    )[common.ranked]
    assert (ranked[covered].diff() <= 0).all()


def test_the_right_class_of_a_view_is_the_clean_model_s_and_no_image_of_the_run_s() -> None:
    given = Classifier(
        name="a", logits=lambda out: out.embedding, targets=torch.tensor([0, 1, 1]), names=("b",)
    )
    assert module._unlabelled(given) == replace(given, targets=None)
    assert module._unlabelled(None) is None


def test_the_ranking_is_the_run_s_where_that_one_runs_the_model() -> None:
    assert module._chosen_rank(None, "attribution") == "attribution"
    assert module._chosen_rank(None, "weight") == module._chosen_rank(None, None) == "reach"
    assert module._chosen_rank("rows", "attribution") == "rows"


@pytest.fixture(scope="module")
def plain(run) -> tuple[Image.Image, Live]:
    """An image of one colour, in which there is not every cluster, and its choosing views."""
    tower, _, parts = run
    image = Image.new("RGB", (64, 64), (200, 30, 30))
    views = Views(image, OPTIONS.views, OPTIONS.seed)
    own = [
        (replace(features, labels=labels), fitted)
        for (features, fitted), labels in zip(
            parts, label_images(tower, views, [features for features, _ in parts]), strict=True
        )
    ]
    classes = Classifier(name="a", logits=lambda out: out.embedding[:, :7], names=("one", "two"))
    given = {"options": OPTIONS, "classifier": classes}
    return image, Live(tower, views, own, ids=views.ids, images=[0, 1], **given)


def test_only_edges_that_the_image_has_entries_of_are_listed(plain) -> None:
    _, live = plain
    scores = [torch.ones(shape) for shape in live.shapes]
    listed = module._edges(live, scores, "reach", 10**6, None)
    there = {
        (site.fit.layer, (k, h, j))
        for site, counts in zip(live.sites, live.counts, strict=True)
        for k, h, j in np.ndindex(*site.shape)
        if counts[k, j] > 0 and site.fit.support[k, j] > 0
    }
    assert {(edge.layer, edge.key) for edge in listed} == there
    assert len(there) < sum(score.numel() for score in scores)


def test_a_signed_ranking_lists_edges_by_their_size_and_gives_them_its_sides(plain) -> None:
    _, live = plain
    scores = [torch.zeros(shape, dtype=torch.float64) for shape in live.shapes]
    k, j = (int(at[0]) for at in torch.nonzero(live.counts[0] > 0, as_tuple=True))
    scores[0][k, 0, j], scores[0][k, 1, j], scores[0][k, 2, j] = -3.0, 2.0, 1.0
    objective = live.objective
    try:
        live.objective = Objective(kind="toward", value=lambda out, *_: out.embedding[:, 0])
        signed = module._edges(live, scores, "attribution", 3, None)
        plainly = module._edges(live, scores, "reach", 2, [-table for table in scores])
    finally:
        live.objective = objective
    assert [edge.head for edge in signed] == [0, 1, 2]
    assert [edge.side for edge in signed] == ["against", "for", "for"]
    # A length has no sign: of two edges the longer comes first, on the side of its effect.
    assert [(edge.head, edge.side) for edge in plainly] == [(1, "against"), (2, "against")]


def test_an_odd_number_of_views_is_refused() -> None:
    with pytest.raises(OptionError, match="an even number"):
        ExplainOptions(views=5).checked()
    with pytest.raises(UsageError, match="`against=TEXT` needs `toward=TEXT`"):
        ExplainOptions(against="red").checked()


@pytest.fixture(scope="module")
def asked(run) -> dict[str, Any]:
    """What an explanation with every option hands on, and what it says of itself."""
    tower, source, parts = run
    seen: dict[str, Any] = {"lives": [], "listed": []}
    listed = module._edges

    def told(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            seen[name] = (args, more)
            return real(*args, **more)

        return call

    class Seen(Live):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            seen["lives"].append(self)

    classes = Classifier(
        name="made up",
        logits=lambda out: out.embedding[:, :7],
        targets=torch.zeros(16, dtype=torch.int64),
    )
    options = ExplainOptions(
        views=4,
        shares=(0.1,),
        band_shares=(0.1,),
        draws=1,
        edges=1,
        edge_draws=2,
        top_k=3,
        ablation="zero",
        seed=3,
        rank="attribution",
        score_images=3,
    )
    value = Objective(
        kind="toward", value=lambda out, *_: out.embedding[:, 0].double(), toward="red"
    )
    given = {"classifier": classes, "objective": value, "options": options, "ids": source.ids}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("joint_scores", "edge_targets", "shared_covers", "_classes"):
            patch.setattr(module, name, told(name, getattr(module, name)))
        patch.setattr(ExplainOptions, "plan", told("plan", ExplainOptions.plan))
        patch.setattr(module, "Live", Seen)
        patch.setattr(
            module, "_edges", lambda live, *more: seen["listed"].append(live) or listed(live, *more)
        )
        patch.setattr(Live, "destination", property(lambda _: "token"))
        seen["found"] = explain(tower, source, parts, find_image(source, IMAGE), name="x", **given)
    return seen | given


def test_classes_are_of_the_whole_image_and_the_overlap_of_the_test_views(asked) -> None:
    choosing, test = asked["lives"]
    assert asked["_classes"][0] == (choosing,)
    assert asked["listed"] == [choosing, choosing]
    assert choosing.images[0] == 0
    own, common, counts, shares = asked["shared_covers"][0]
    assert (own.key, common.key, shares) == ("own", "common", (0.1,))
    assert all(torch.equal(a, b) for a, b in zip(counts, test.counts, strict=True))
    assert set(test.images) == {2, 3}


def test_targets_of_the_run_s_images_are_none_of_the_views(asked) -> None:
    assert [live.classifier.targets for live in asked["lives"]] == [None, None]


def test_the_seed_and_the_objective_reach_the_random_edges_and_the_common_order(asked) -> None:
    options = asked["edge_targets"][0][4]
    assert (options.seed, options.edges, options.edge_draws) == (3, 1, 2)
    assert asked["edge_targets"][0][3].key == "own"
    own, orders, modes = asked["plan"][0]
    assert own is options
    assert ([order.key for order in orders], modes) == (["own", "own", "common", "common"], MODES)
    scored = asked["joint_scores"][1]
    assert scored["objective"] is asked["objective"]
    assert scored["classifier"] is asked["classifier"]
    assert len(scored["images"]) == asked["found"].common_images == 3


def test_the_seed_decides_the_views(run, asked) -> None:
    image = find_image(run[1], IMAGE)
    seen = asked["lives"][0].source
    for view in range(1, 4):
        drawn = [np.asarray(Views(image, 4, seed).load(view)) for seed in (3, 0)]
        assert np.array_equal(seen.load(view), drawn[0])
    assert not np.array_equal(*drawn)


def test_an_explanation_says_what_it_was_made_with(run, asked) -> None:
    tower, _, parts = run
    found = asked["found"]
    assert (found.ablation, found.classifier) == ("zero", "made up")
    assert found.objective == asked["objective"].record()
    fits = {f"fit_{fit.layer}": fit.identity for _, fit in parts}
    assert fits.items() <= found.provenance.parents.items()
    assert found.provenance.options["ablation"] == "zero"
    assert found.grid == list(tower.info.grid)
    assert found.prefix_kinds == list(tower.info.prefix_kinds) == ["class token"]
    assert found.destination == "token"
    assert found.metrics == ["cosine", "kl", "margin", "accuracy", "toward"]


def test_the_common_order_is_of_the_fits_entries_and_not_of_the_choosing_views_alone(
    run, plain, orders, monkeypatch
) -> None:
    tower, source, parts = run
    image, choosing = plain
    monkeypatch.setattr(module, "orders_of", lambda *args, **more: [(args, more)])
    options = replace(OPTIONS, rank="attribution")
    scores = [torch.zeros(shape) for shape in choosing.shapes]
    with pytest.raises(Known):
        explain(
            tower, source, parts, image, name="x", ids=source.ids, scores=scores, options=options
        )
    (_, own), (_, common) = orders
    assert all(torch.equal(a, b) for a, b in zip(own["support"], choosing.counts, strict=True))
    # Both are on the axis of the views that are tested.
    assert [args[2].images for args, _ in orders] == [[2, 3], [2, 3]]
    assert "support" not in common


def test_classes_of_the_whole_image_have_their_probabilities(plain) -> None:
    _, live = plain
    with torch.no_grad():
        logits = next(iter(live.batches())).clean.embedding[0, :7].double()
    chances = logits.softmax(0).sort(descending=True)
    found = module._classes(live)
    assert [each["probability"] for each in found] == pytest.approx(chances.values[:5].tolist())
    names = ["one", "two", *(f"class {at}" for at in range(2, 7))]
    assert [each["name"] for each in found] == [names[at] for at in chances.indices[:5]]


def test_edges_are_those_of_the_image_and_of_its_own_order(run, explained) -> None:
    _, _, parts = run
    assert len(explained.edges) == 5
    scores = [edge.score for edge in explained.edges]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0
    layers = {fitted.layer: features for features, fitted in parts}
    for edge in explained.edges + explained.common_edges:
        assert edge.layer in layers
    assert [e.key for e in explained.effects] == [e.key for e in explained.edges[:2]]
    assert explained.common_images == 7
    assert all(0.0 <= record["shared"] <= 1.0 for record in explained.overlap)


def test_the_partner_of_a_view_cannot_be_asked_for() -> None:
    with pytest.raises(OptionError, match="mean, resample, zero, knockout"):
        ExplainOptions(ablation="pair").checked()


def test_an_explanation_reads_back(explained, tmp_path: Path) -> None:
    assert len(tables(explained)["curves"]["share"]) == 4 * 2
    assert f"5 edges of {IMAGE}" in repr(explained)
    path = tmp_path / "explain.json"
    explained.save(path)
    again = Explanation.load(path)
    assert again.edges == explained.edges
    assert again.labels == explained.labels
    assert again.identity == explained.identity


def test_a_ranking_of_the_fit_is_refused_and_a_wrong_image_named(run) -> None:
    tower, source, parts = run
    running = "output, attribution, kept, reach, rows"
    with pytest.raises(UsageError, match=f"`rank=weight` is of the fit .* one of {running}$"):
        explain(
            tower,
            source,
            parts,
            source.load(0),
            name="x",
            ids=source.ids,
            options=replace(OPTIONS, rank="weight"),
        )
    with pytest.raises(UsageError, match=r"IMAGE nowhere\.png"):
        find_image(source, "nowhere.png")


def test_what_does_not_belong_together_is_refused_before_the_model_runs(run, monkeypatch) -> None:
    tower, source, parts = run
    monkeypatch.setattr(module, "label_images", None)
    (features, _), (_, other) = parts
    image = source.load(0)
    with pytest.raises(UsageError, match="a model is expected as a tower, not as str"):
        explain("a model", source, parts, image, name="x", ids=source.ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fit file was not made from this features file"):
        explain(tower, source, [(features, other)], image, name="x", ids=source.ids)
    with pytest.raises(UsageError, match="no layers to intervene on"):
        explain(tower, source, [], image, name="x", ids=source.ids)


def test_the_margin_is_that_of_the_given_classifier(run, monkeypatch) -> None:
    tower, source, parts = run
    given: list[Any] = []

    def chosen(*args: Any) -> None:
        given.extend(args)
        raise Known

    monkeypatch.setattr(module, "chosen_objective", chosen)
    monkeypatch.setattr(module, "_of_views", lambda *_: parts)
    classes = Classifier(name="a", logits=lambda out: out.embedding)
    options = replace(OPTIONS, objective="margin")
    more = {"name": "x", "ids": source.ids, "classifier": classes, "options": options}
    with pytest.raises(Known):
        explain(tower, source, parts, source.load(0), **more)
    assert given[0] is tower
    assert given[1].objective == "margin"
    assert given[2] is classes
