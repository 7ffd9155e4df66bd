"""What is run, on which images, and what it shows on a tower whose circuit is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted_run import PlantedRun, planted_run
from torch import Tensor

from xaikit.errors import UsageError
from xaikit.interventions import (
    EdgeSet,
    Live,
    Patch,
    ablation_patch,
    cover_share,
    edge_set,
    edges_patch,
    full_patch,
    injection_patch,
    order_patch,
    random_order,
    sets_patch,
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
    planted_set = EdgeSet(tables=(table,))
    share = cover_share(planted_set, live.counts)
    others = []
    for seed in range(6):
        # Edges that cover as much in sum, none of them planted.
        order = random_order(live.counts, live.shapes, [seed])
        last = table.reshape(-1)[order.ranked].long().argsort(stable=True)
        moved = replace(order, ranked=order.ranked[last], covers=order.covers[last])
        others.append(order_patch(moved, [share]))
    patches = [
        full_patch(live.shapes),
        sets_patch([planted_set]),
        sets_patch([planted_set], keep=True),
        *others,
    ]
    full, removed, kept, *random = cosine(live, patches)
    assert full > 0.02
    assert removed >= 0.95 * full
    assert kept <= 0.05 * full
    assert max(random) <= 0.05 * full


def test_the_batch_size_changes_nothing() -> None:
    run, table = planted("token")
    order = random_order(run.live().counts, run.live().shapes, [0])
    patches = [sets_patch([EdgeSet(tables=(table,))]), order_patch(order, [0.2, 0.4])]
    one, other = (run.live(batch_size=size).measure(patches) for size in (5, 32))
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left["cosine"], right["cosine"], atol=1e-9, rtol=1e-3)


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_single_edges_and_clusters_equal_sets_of_edges(destination: str) -> None:
    run, table = planted(destination)
    live = run.live()
    edge = (0, *(int(i) for i in table.nonzero()[0]))
    row = edge_set([], live.shapes)
    row.tables[0][edge[1]] = True
    found = cosine(
        live,
        [
            edges_patch([edge], live.shapes),
            sets_patch([edge_set([edge], live.shapes)]),
            ablation_patch([(0, edge[1])], live.shapes),
            sets_patch([row]),
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
    labels = batch.sites[0].labels
    logits = torch.zeros(batch.sites[0].entries)
    prototypes = run.fit.prototypes
    edits = next(iter(injection_patch([(0, 2)], [prototypes]).edits(batch)))
    edited = edits[run.fit.next_layer](None, logits)
    for i in (0, 7, 20):
        for j in (0, 3, 25):
            goal = labels[1, j] if destination == "cluster" else j
            own = labels[1, i] == 2
            assert edited[1, 1, i, j] == (0 if own else prototypes[2, 1, goal])


def test_resampling_needs_a_second_image() -> None:
    run, _ = planted("token")
    with pytest.raises(UsageError, match="another image"):
        run.live([1], ablation="resample")


def test_images_that_are_not_those_of_the_trace_are_refused() -> None:
    run, _ = planted("token")
    with pytest.raises(UsageError, match="3 image ids for the labels of 64 images"):
        Live(run.tower, run.source, [(run.features, run.fit)], ids=["a", "b", "c"], images=[0])
    ids = [f"other-{name}" for name in run.trace.images]
    with pytest.raises(UsageError, match=r"2 of 2 images .* first is other-000001\.png"):
        Live(run.tower, run.source, [(run.features, run.fit)], ids=ids, images=[1, 2])


def test_images_are_found_by_id_whatever_their_order() -> None:
    run, table = planted("token")
    shuffled = list(range(64))[::-1]
    source = type(run.source)(run.source.images)
    load = source.load
    source.ids = [run.source.ids[i] for i in shuffled]
    source.load = lambda i: load(shuffled[i])
    parts = [(run.features, run.fit)]
    live = Live(run.tower, source, parts, ids=run.trace.images, images=[3, 9])
    patches = [sets_patch([EdgeSet(tables=(table,))])]
    expected = run.live([3, 9]).measure(patches)[0]["cosine"]
    torch.testing.assert_close(live.measure(patches)[0]["cosine"], expected)


def test_another_model_is_refused() -> None:
    run, _ = planted("token")
    other = planted_run("token", images=16, seed=1)
    parts = [(run.features, run.fit)]
    with pytest.raises(UsageError, match="the fit is of planted with weights"):
        Live(other.tower, run.source, parts, ids=run.trace.images, images=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"ig_steps": 0}, "ig_steps=0"),
        ({"ablation": "half"}, "ablation=half"),
        ({"images": []}, "no images"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    run, _ = planted("token")
    with pytest.raises(UsageError, match=message):
        run.live(**options)


def test_a_partner_is_the_same_whatever_the_batch_size_and_another_for_another_seed() -> None:
    run, _ = planted("token")
    images = run.features.heldout[:9]
    seen = [run.live(images, batch_size=size, ablation="resample") for size in (2, 4, 32)]
    assert seen[0].partners == seen[1].partners == seen[2].partners
    ids = [run.trace.images[image] for image in images]
    assert sorted(seen[0].partners) == sorted(ids)
    assert not any(own == partner for own, partner in zip(ids, seen[0].partners, strict=True))
    assert run.live(images, ablation="resample", seed=1).partners != seen[0].partners
    batches = [set(ids[start : start + 2]) for start in range(0, 9, 2)]
    pairs = [set(seen[0].partners[start : start + 2]) for start in range(0, 9, 2)]
    assert any(pair - batch for pair, batch in zip(pairs, batches, strict=True))


def test_resampling_everything_gives_the_partners_attention_whatever_the_batch_size() -> None:
    run, _ = planted("token")
    images = run.features.heldout[:7]
    one, other = (run.live(images, batch_size=size, ablation="resample") for size in (2, 7))
    found = [live.measure([full_patch(live.shapes)])[0]["cosine"] for live in (one, other)]
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-3)
    truth = run.planted.logits(run.planted.images(64))
    places = {name: place for place, name in enumerate(run.trace.images)}
    logits = torch.cat([batch.partner_logits[0] for batch in one.batches()])
    expected = truth[[places[name] for name in one.partners]]
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-3)


def test_a_pair_takes_the_logits_of_the_given_image() -> None:
    run, _ = planted("token")
    images = run.features.heldout[:3]
    ids = run.trace.images
    pairs = {ids[image]: ids[0] for image in images}
    live = run.live(images, ablation="pair", pairs=pairs)
    assert live.partners == [ids[0]] * 3
    truth = run.planted.logits(run.planted.images(64))[0]
    for batch in live.batches():
        for logits in batch.partner_logits[0]:
            torch.testing.assert_close(logits, truth, atol=2e-3, rtol=1e-3)
    with pytest.raises(UsageError, match=r"2 of 3 images have no partner, the first is 000003"):
        run.live(images, ablation="pair", pairs=dict([next(iter(pairs.items()))]))
    with pytest.raises(UsageError, match=r"elsewhere\.png is not among the given images"):
        run.live(images, ablation="pair", pairs=dict.fromkeys(pairs, "elsewhere.png"))


def test_a_batch_is_as_large_as_there_is_room_for_its_partners_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = planted("token")
    _, heads, tokens = run.fit.prototypes.shape
    each = 4 * heads * tokens**2
    for room, size in ((3 * each, 3), (4 * each - 1, 3), (1, 1), (99 * each, 9)):
        monkeypatch.setattr("xaikit.interventions.live.PARTNER_BYTES", room)
        assert run.live(batch_size=9, ablation="resample").batch_size == size
        assert run.live(batch_size=9).batch_size == 9
