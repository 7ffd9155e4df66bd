"""One image explained: its clusters, its own edges, and tests on views that chose nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.tables import tables
from xaikit.errors import OptionError, UsageError
from xaikit.images.scenes import SceneSource
from xaikit.images.views import Views, find_image
from xaikit.interventions import Live
from xaikit.passes.labels import label_images
from xaikit.stages.cluster import cluster
from xaikit.stages.explain import ExplainOptions, explain
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

OPTIONS = ExplainOptions(
    views=4, shares=(0.1, 1.0), band_shares=(0.1,), draws=3, edges=2, edge_draws=3, top_k=5
)
IMAGE = "demo/0/000003"


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
    return explain(
        tower, source, parts, image, name=IMAGE, ids=source.ids, rank="reach", options=OPTIONS
    )


def test_an_image_of_the_run_has_the_clusters_that_the_run_gave_it(run, explained) -> None:
    tower, source, parts = run
    labels = label_images(tower, source, [features for features, _ in parts], batch_size=5)
    for own, (features, _) in zip(labels, parts, strict=True):
        assert torch.equal(own, features.labels)
    shown = [features.labels[3].tolist() for features, _ in parts]
    assert explained.labels == shown


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
    assert explained.common_images == 8
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
    with pytest.raises(UsageError, match="`rank=weight`"):
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
