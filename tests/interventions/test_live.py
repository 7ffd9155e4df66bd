"""What is run, on which images, and what it shows on a tower whose circuit is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted_run import PlantedRun, planted_run
from torch import Tensor

from xaikit.errors import UsageError
from xaikit.interventions import (
    Live,
    Patch,
    ablation_patch,
    cover_share,
    edge_table,
    edges_patch,
    full_patch,
    injection_patch,
    order_patch,
    random_order,
    set_patch,
)

ONLY = {"token": {"content_edges": 0}, "cluster": {"token_edges": 0}}


def planted(destination: str) -> tuple[PlantedRun, Tensor]:
    """A tower with edges of one kind only, and the table of its edges."""
    run = planted_run(destination, images=64, **ONLY[destination])
    truth = run.planted.truth(run.features.labels, run.features.labels, run.features.num_clusters)
    return run, truth.edge_token if destination == "token" else truth.edge_content


def cosine(live: Live, patches: list[Patch]) -> list[float]:
    return [float(found["cosine"].mean()) for found in live.measure(patches)]


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_removing_the_planted_edges_does_what_removing_everything_does(destination: str) -> None:
    run, table = planted(destination)
    live = run.live()
    share = cover_share(table, live.counts)
    others = []
    for seed in range(6):
        # Edges that cover as much in sum, none of them planted.
        order = random_order(live.counts, live.shape[1], destination, [seed])
        moved = torch.where(table, order.positions + order.positions.numel(), order.positions)
        others.append(order_patch(replace(order, positions=moved), [share]))
    patches = [
        full_patch(),
        set_patch(table, destination),
        set_patch(table, destination, keep=True),
        *others,
    ]
    full, removed, kept, *random = cosine(live, patches)
    assert full > 0.02
    assert removed >= 0.95 * full
    assert kept <= 0.05 * full
    assert max(random) <= 0.05 * full


def test_the_batch_size_changes_nothing() -> None:
    run, table = planted("token")
    order = random_order(run.live().counts, run.planted.spec.heads, "token", [0])
    patches = [set_patch(table, "token"), order_patch(order, [0.2, 0.4])]
    one, other = (run.live(batch_size=size).measure(patches) for size in (5, 32))
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left["cosine"], right["cosine"], atol=1e-9, rtol=1e-3)


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_single_edges_and_clusters_equal_sets_of_edges(destination: str) -> None:
    run, table = planted(destination)
    live = run.live()
    edge = tuple(int(i) for i in table.nonzero()[0])
    row = torch.zeros(live.shape, dtype=torch.bool)
    row[edge[0]] = True
    found = cosine(
        live,
        [
            edges_patch([edge], destination),
            set_patch(edge_table([edge], live.shape), destination),
            ablation_patch([edge[0]]),
            set_patch(row, destination),
        ],
    )
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[2] == pytest.approx(found[3], rel=1e-6)
    assert found[0] > 0


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_injecting_gives_the_other_rows_the_prototype(destination: str) -> None:
    run, _ = planted(destination)
    live = run.live()
    batch = next(iter(live.batches()))
    logits = torch.zeros(len(batch.labels), live.shape[1], *[batch.labels.shape[1]] * 2)
    prototypes = run.fit.prototypes
    edit = next(iter(injection_patch([2], prototypes).edits(batch)))
    edited = edit(None, logits)
    for i in (0, 7, 20):
        for j in (0, 3, 25):
            goal = batch.labels[1, j] if destination == "cluster" else j
            own = batch.labels[1, i] == 2
            assert edited[1, 1, i, j] == (0 if own else prototypes[2, 1, goal])


def test_resampling_needs_a_second_image_and_leaves_none_alone() -> None:
    run, _ = planted("token")
    live = run.live(run.features.heldout[:9], batch_size=4, ablation="resample")
    assert all(len(batch.images) > 1 for batch in live.batches())
    with pytest.raises(UsageError, match="another image"):
        run.live([1], ablation="resample")


def test_images_that_are_not_those_of_the_trace_are_refused() -> None:
    run, _ = planted("token")
    with pytest.raises(UsageError, match="3 image ids for the labels of 64 images"):
        Live(run.tower, run.source, run.features, run.fit, ids=["a", "b", "c"], images=[0])
    ids = [f"other-{name}" for name in run.trace.images]
    with pytest.raises(UsageError, match=r"2 of 2 images .* first is other-000001\.png"):
        Live(run.tower, run.source, run.features, run.fit, ids=ids, images=[1, 2])


def test_images_are_found_by_id_whatever_their_order() -> None:
    run, table = planted("token")
    shuffled = list(range(64))[::-1]
    source = type(run.source)(run.source.images)
    load = source.load
    source.ids = [run.source.ids[i] for i in shuffled]
    source.load = lambda i: load(shuffled[i])
    live = Live(run.tower, source, run.features, run.fit, ids=run.trace.images, images=[3, 9])
    patches = [set_patch(table, "token")]
    expected = run.live([3, 9]).measure(patches)[0]["cosine"]
    torch.testing.assert_close(live.measure(patches)[0]["cosine"], expected)


def test_another_model_is_refused() -> None:
    run, _ = planted("token")
    other = planted_run("token", images=16, seed=1)
    with pytest.raises(UsageError, match="the fit is of planted with weights"):
        Live(other.tower, run.source, run.features, run.fit, ids=run.trace.images, images=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch-size 0"),
        ({"ig_steps": 0}, "--ig-steps 0"),
        ({"ablation": "half"}, "--ablation half"),
        ({"images": []}, "no images"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    run, _ = planted("token")
    with pytest.raises(UsageError, match=message):
        run.live(**options)
