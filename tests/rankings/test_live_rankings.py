"""Rankings that run the model, against slow and independent computations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted_run import PlantedRun, planted_run
from torch import Tensor

from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.interventions import (
    EdgeSet,
    Live,
    LiveOptions,
    Objective,
    Patch,
    ablate,
    full_patch,
    spread,
)
from xaikit.rankings import KEYS, ranking, reach, score, score_from_fit
from xaikit.rankings.gradients import (
    attributed,
    directions_for,
    edge_sums,
    image_directions,
    midpoints,
    per_entry,
)
from xaikit.rankings.kept import POINTS
from xaikit.rankings.live import joint_scores
from xaikit.rankings.reach import direction_counts
from xaikit.rankings.rows import contributions
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace_layers
from xaikit.towers import Edit, load_tower
from xaikit.towers.projection import written_values

DESTINATIONS = ["token", "cluster"]


def case(destination: str) -> tuple[PlantedRun, Live]:
    run = planted_run(destination)
    return run, run.live(run.features.discovery[:6], ig_steps=2)


def planted_edges(run: PlantedRun, destination: str) -> list[tuple[int, ...]]:
    labels = run.features.labels
    truth = run.planted.truth(labels, labels, run.features.num_clusters)
    table = truth.edge_token if destination == "token" else truth.edge_content
    return [tuple(edge) for edge in table.nonzero().tolist()]


def finite_difference(
    live: Live, edge: tuple[int, ...], way_points: Sequence[float], step: float = 0.02
) -> float:
    """Slope of the summed ``1 − cos`` along one edge's way to the mean, on the way of all."""
    marked = torch.zeros(live.shapes[0], dtype=torch.bool)
    marked[edge] = True
    points = [(t, sign) for t in way_points for sign in (1.0, -1.0)]

    def edits(batch):
        part = batch.sites[0]
        mask, goal = spread(marked, part.labels, live.destination), part.position_mean
        for t, sign in points:
            way = torch.where(mask, t + sign * step, t)
            yield lambda _call, logits, way=way: logits + way * (goal - logits)

    found = live.measure([Patch(size=len(points), edits=edits)])[0]["cosine"].sum(1)
    slopes = (found[0::2] - found[1::2]) / (2 * step)
    return float(slopes.mean())


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize(("key", "points"), [("attribution", midpoints(2)), ("kept", POINTS)])
def test_attributions_equal_finite_differences(
    destination: str, key: str, points: Sequence[float]
) -> None:
    run, live = case(destination)
    found = score(key, live)[0]
    for edge in planted_edges(run, destination):
        expected = finite_difference(live, edge, points)
        assert float(found[edge]) == pytest.approx(expected, rel=1e-3), edge


@lru_cache(maxsize=1)
def two_layers() -> tuple[Any, ...]:
    """Of the demo: later logits of a planted tower do not depend on earlier attention."""
    tower, source = load_tower("xaikit-demo"), SceneSource(8, 0)
    parts = []
    for traced in trace_layers(tower, source, [(0, 1), (2, 3)], workers=1):
        features = cluster(traced, num_clusters=3, sample_tokens=200)
        parts.append((features, fit(traced, features, num_permutations=2, controls=False)))
    return tower, source, parts


def demo_live(objective: Objective | None = None) -> Live:
    tower, source, parts = two_layers()
    return Live(tower, source, parts, ids=source.ids, images=range(8), objective=objective)


def test_reach_of_a_scalar_needs_no_directions_and_is_drawn_toward_nothing() -> None:
    value = Objective(kind="toward", value=lambda out, *_: out.embedding[:, 0].double())
    live = demo_live(value)
    (batch,) = live.batches()
    for site, (found, values) in enumerate(
        zip(score("reach", live), attributed(batch, 0.5), strict=True)
    ):
        total = edge_sums(values.double(), batch.sites[site]).abs().sum(0)
        expected = total / live.counts[site][:, None, :].clamp(min=1)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-4)


def test_a_gradient_runs_on_through_the_half_way_points_of_later_layers() -> None:
    live = demo_live()
    (batch,), step = live.batches(), 0.01

    def effect(moved: int, way: float) -> float:
        def edit(goal: Tensor, t: float) -> Edit:
            return lambda _call, logits: logits + t * (goal - logits)

        ways = [way if site == moved else 0.5 for site in range(len(batch.sites))]
        edits = {
            part.layer: edit(part.position_mean, t)
            for part, t in zip(batch.sites, ways, strict=True)
        }
        with torch.no_grad():
            return float(batch.effect(batch.cache.outputs(edits)).sum())

    for site, values in enumerate(attributed(batch, 0.5)):
        expected = (effect(site, 0.5 + step) - effect(site, 0.5 - step)) / (2 * step)
        assert float(values.double().sum()) == pytest.approx(expected, rel=4e-3)


def test_attributions_add_up_to_the_full_effect() -> None:
    run, _ = case("token")
    live = run.live(run.features.discovery[:6], ig_steps=20)
    full = float(live.measure([full_patch(live.shapes)])[0]["cosine"].sum())
    assert float(score("attribution", live)[0].sum()) == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_output_equals_its_formula(destination: str) -> None:
    run, live = case(destination)
    attention = run.planted.module.transformer.resblocks[run.planted.next_layer].attn
    heads, clusters = run.planted.spec.heads, run.features.num_clusters
    expected = torch.zeros(live.shapes[0], dtype=torch.float64)
    usual = run.fit.position_mean.double().softmax(-1)
    for batch in live.batches():
        call, labels = batch.calls[0], batch.sites[0].labels
        attention_rows = call.logits().double().softmax(-1)
        projection = attention.out_proj.weight.double().unflatten(1, (heads, -1))
        for b in range(len(batch.images)):
            for h in range(heads):
                written = call.value[b, h].double() @ projection[:, h].T
                sizes = written.square().sum(-1)
                entries = (attention_rows[b, h] - usual[h]).square() * sizes
                for k in range(clusters):
                    rows = entries[labels[b] == k].sum(0)
                    if destination == "token":
                        expected[k, h] += rows
                        continue
                    for goal in range(clusters):
                        expected[k, h, goal] += rows[labels[b] == goal].sum()
    torch.testing.assert_close(score("output", live)[0], expected, rtol=1e-4, atol=1e-7)


def test_sums_over_an_edges_entries_image_by_image() -> None:
    _, live = case("cluster")
    batch = next(iter(live.batches()))
    generator = torch.Generator().manual_seed(0)
    part = batch.sites[0]
    values = torch.rand(part.entries, generator=generator)
    found = edge_sums(values, part)
    rows, goals = part.labels[2] == 1, part.labels[2] == 4
    expected = values[2, 3][rows][:, goals].sum()
    torch.testing.assert_close(found[2, 1, 3, 4], expected)


@pytest.mark.parametrize("key", KEYS)
def test_every_ranking_has_a_record_and_scores_every_edge(key: str) -> None:
    run, live = case("token")
    record = ranking(key)
    assert record.key == key
    found = score(key, live)[0]
    assert found.shape == run.fit.prototypes.shape
    assert bool(torch.isfinite(found).all())
    if record.needs_model:
        with pytest.raises(UsageError, match=f"`rank={key}` needs the model"):
            score_from_fit(key, run.fit)


def best(scores: Tensor, edges: list[tuple[int, ...]]) -> float:
    """Share of the planted edges among as many of the best."""
    order = scores.reshape(-1).argsort(descending=True)[: len(edges)].tolist()
    _, heads, width = scores.shape
    flat = {(k * heads + h) * width + j for k, h, j in edges}
    return len(flat & set(order)) / len(edges)


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_attribution_finds_the_planted_edges(destination: str) -> None:
    options = {"content_edges": 0} if destination == "token" else {"token_edges": 0}
    run = planted_run(destination, images=64, **options)
    live = run.live(run.features.discovery)
    edges = planted_edges(run, destination)
    assert best(score("attribution", live)[0], edges) == 1.0


def embedding_moves(live: Live, edge: tuple[int, ...], step: float = 0.02) -> Tensor:
    """Length of the move of each image's embedding along one edge's way, by differences."""
    marked = torch.zeros(live.shapes[0], dtype=torch.bool)
    marked[edge] = True
    lengths = []
    for batch in live.batches():
        part = batch.sites[0]
        mask, goal = spread(marked, part.labels, live.destination), part.position_mean
        ends = []
        for sign in (1.0, -1.0):
            way = torch.where(mask, 0.5 + sign * step, 0.5)
            with torch.no_grad():
                out = batch.cache.outputs(
                    lambda _call, logits, way=way, goal=goal: logits + way * (goal - logits)
                )
            ends.append(out.embedding.double())
        units = [torch.nn.functional.normalize(end, dim=-1) for end in ends]
        lengths.append((units[0] - units[1]).norm(dim=-1) / (2 * step))
    return torch.cat(lengths)


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_reach_is_the_length_of_the_embeddings_move(
    destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, live = case(destination)
    # Many directions, so that the estimate of a length is near the length.
    monkeypatch.setattr("xaikit.rankings.reach.directions_for", lambda *_: 300.0)
    found = score("reach", live)[0]
    for edge in planted_edges(run, destination)[:3]:
        entries = float(live.counts[0][edge[0], edge[2]])
        expected = float(embedding_moves(live, edge).sum()) / entries
        assert float(found[edge]) == pytest.approx(expected, rel=0.1), edge


def test_reach_with_few_directions_ranks_as_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    run = planted_run("cluster", images=64)
    live = run.live(run.features.discovery)
    found = score("reach", live)[0].flatten()
    monkeypatch.setattr("xaikit.rankings.reach.directions_for", lambda *_: 24.0)
    many = score("reach", live)[0].flatten()
    ranks = torch.stack([each.argsort().argsort().double() for each in (found, many)])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.97


def test_kept_looks_from_the_ablated_half_of_the_way() -> None:
    """Most of its points are nearer to the means, where few edges are kept."""
    assert all(0.0 < point < 1.0 for point in POINTS)
    assert sum(POINTS) / len(POINTS) > 0.6


def test_edges_without_an_entry_have_no_score_for_each() -> None:
    counts = torch.tensor([[0.0, 4.0]])
    (found,) = per_entry([torch.tensor([[[0.0, 2.0]]])], SimpleNamespace(counts=(counts,)))  # type: ignore[arg-type]
    assert found.tolist() == [[[0.0, 0.5]]]


def test_reach_s_directions_are_the_seed_s() -> None:
    run = planted_run("token", images=16)
    images = run.features.discovery[:3]
    first, again, other = (score("reach", run.live(images, seed=seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_moves_that_are_all_longer_are_drawn_toward_their_margins_as_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error of a length goes with its square, whatever the unit."""
    live, real = demo_live(), reach.moves
    found = score("reach", live)
    monkeypatch.setattr(
        reach, "moves", lambda *given: ([1e6 * v for v in each] for each in real(*given))
    )
    for longer, table in zip(score("reach", live), found, strict=True):
        torch.testing.assert_close(longer, 1e6 * table, rtol=1e-4, atol=1e-9)


def test_three_plain_passes_pay_for_the_directions() -> None:
    assert [directions_for(after) for after in (0.01, 0.7, 2.0)] == [8.0, 2.0, 1.0]
    for layers in (4, 12, 24):
        for layer in range(1, layers):
            after = (layers - layer) / layers
            count = directions_for(after)
            # What is left of three passes is for sums over edges, or for learning.
            assert count in (1.0, 8.0) or count * after == pytest.approx(1.4)
            assert 1 + 1.05 * count * after <= 2.5


def test_some_images_have_one_direction_more() -> None:
    assert direction_counts(1.4, 10) == [2] * 4 + [1] * 6
    assert direction_counts(3.0, 4) == [3] * 4
    assert direction_counts(1.0, 2) == [1, 1]


def test_reach_is_the_same_for_any_batch_where_some_images_have_two_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xaikit.rankings.reach.directions_for", lambda *_: 1.4)
    run = planted_run("cluster", images=20)
    found = [
        score("reach", run.live(run.features.discovery, batch_size=size))[0] for size in (3, 7, 32)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-9)


def test_an_images_directions_are_its_own_whatever_the_batch() -> None:
    together = image_directions([4, 9, 2], 3, 5, seed=1)
    assert together.shape == (3, 3, 5)
    assert torch.equal(together[:, 1:2], image_directions([9], 3, 5, seed=1))
    assert not torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(together, image_directions([4, 9, 2], 3, 5, seed=2))


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_rows_shares_the_effect_of_each_row_group_out(destination: str) -> None:
    _, live = case(destination)
    found = score("rows", live)[0]
    groups = [(k, h) for k in range(live.shapes[0][0]) for h in range(live.shapes[0][1])]

    def edits(batch):
        part = batch.sites[0]
        for k, h in groups:
            mask = torch.zeros(part.entries, dtype=torch.bool)
            mask[:, h] = (part.labels == k)[:, :, None]
            yield ablate(mask, "mean", position_mean=part.position_mean)

    effects = live.measure([Patch(size=len(groups), edits=edits)])[0]["cosine"].sum(1)
    expected = effects.reshape(live.shapes[0][:2])
    torch.testing.assert_close(found.sum(-1), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("key", ["reach", "rows"])
def test_what_runs_the_model_finds_the_planted_edges(key: str, destination: str) -> None:
    options = {"content_edges": 0} if destination == "token" else {"token_edges": 0}
    run = planted_run(destination, images=64, **options)
    live = run.live(run.features.discovery)
    assert best(score(key, live)[0], planted_edges(run, destination)) == 1.0


def test_rows_of_an_upper_layer_are_that_layer_s_own() -> None:
    """Its rows alone are ablated, and their effect is shared out by its own contributions."""
    live = demo_live()
    (batch,) = live.batches()
    upper = score("rows", live)[1]
    cluster = int(batch.sites[1].labels.unique()[0])
    tables = [torch.zeros(shape, dtype=torch.bool) for shape in live.shapes]
    tables[1][cluster, 2] = True
    with torch.no_grad():
        edges = EdgeSet(tables=tuple(tables))
        effects = batch.effect(batch.cache.outputs(batch.ablation(edges)))
        parts = edge_sums(contributions(batch, 1).double(), batch.sites[1])[:, cluster, 2]
    expected = (effects[:, None] * parts / parts.sum(-1, keepdim=True)).sum(0)
    torch.testing.assert_close(upper[cluster, 2], expected, rtol=1e-4, atol=1e-9)


def test_contributions_add_up_to_the_change_of_the_heads_output() -> None:
    _, live = case("token")
    batch = next(iter(live.batches()))
    call = batch.calls[0]
    goal = batch.sites[0].position_mean
    near = torch.lerp(goal.expand_as(call.logits()), call.logits(), 0.02)
    call.logits = lambda: near
    written = written_values(live.tower, live.sites[0].layer, call)
    change = (goal.softmax(-1) - near.softmax(-1)) @ written
    torch.testing.assert_close(
        contributions(batch, 0).sum(-1), change.square().sum(-1), rtol=0.02, atol=1e-9
    )


@pytest.mark.parametrize("ablation", ["resample", "pair"])
def test_scores_are_those_of_the_mean_whatever_the_curves_ablation(ablation: str) -> None:
    """So that a single discovery image, and one without a partner, can be scored on."""
    run = planted_run("token")
    given = (run.tower, run.source, [(run.features, run.fit)])
    wanted = {"ids": run.trace.images}
    found, expected = (
        joint_scores(
            ["output"], *given, **wanted, options=LiveOptions(ablation=each, score_images=1)
        )["output"][0]
        for each in (ablation, "mean")
    )
    assert torch.equal(found, expected)
