"""Sums of blocks of images against the stored route's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_trace

from xaikit.statistics.edge_null import EdgeNull, pair_null, token_null
from xaikit.statistics.pairs import random_blocks
from xaikit.statistics.streaming import BlockSums, block_null
from xaikit.statistics.sums import LogitSums, pair_position_share

IMAGES, HEADS, TOKENS, CLUSTERS = 26, 3, 7, 4


@pytest.fixture
def data(rng):
    """Logits with position, image and label effects, and a cluster that is always at token 0."""
    labels = rng.integers(1, CLUSTERS, (IMAGES, TOKENS))
    labels[:, 0] = 0
    logits = rng.normal(size=(IMAGES, HEADS, TOKENS, TOKENS))
    logits += 5 * rng.normal(size=(1, HEADS, TOKENS, TOKENS)) + rng.normal(size=(IMAGES, 1, 1, 1))
    logits += 0.5 * labels[:, None, :, None]
    return torch.from_numpy(labels), torch.from_numpy(logits).float()


def streamed(labels, logits, blocks, pilot_images=5, **options) -> BlockSums:
    pilot = logits[:pilot_images].mean(0)
    found = BlockSums(CLUSTERS, pilot, **options)
    for number, chosen in enumerate(blocks):
        part = logits[chosen]
        found.add(
            labels[chosen], lambda heads, part=part: part[:, heads].transpose(0, 1).clone(), number
        )
    return found


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_sums_of_blocks_are_the_stored_route_s(data, destination):
    labels, logits = data
    found = streamed(labels, logits, random_blocks(IMAGES, 6, 0), destination=destination).sums()
    stored = LogitSums(CLUSTERS, HEADS, TOKENS)
    stored.add(labels, logits)
    names = ["counts", "position_counts", "sums", "position", "square"]
    for name in names + (["pair_counts", "pair_sums"] if destination == "cluster" else []):
        close(getattr(found, name), getattr(stored, name))
    assert found.images == IMAGES


@pytest.mark.parametrize("crossing", [True, False])
@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_one_block_of_all_images_is_the_stored_null(data, destination, crossing, monkeypatch):
    labels, logits = data
    monkeypatch.setattr(
        "xaikit.statistics.token_edges.TokenEdges._crossing_is_cheaper", lambda *_: crossing
    )
    found = streamed(labels, logits, [np.arange(IMAGES)], destination=destination, energy=True)
    sums = found.sums()
    build = token_null if destination == "token" else pair_null
    stored = build(make_trace(logits), np.arange(IMAGES), labels, sums, draws=0, seed=0)
    null = found.null(sums)
    close(null.zscores, stored.zscores)
    assert bool((null.occupied == stored.occupied).all())
    assert float(null.zscores.abs().max()) > 3
    if destination == "token":
        close(null.energy, stored.energy, 1e-4)
    else:
        # About the pilot: exact in total, and for each edge where the pilot is the mean.
        close(null.energy.sum(), stored.energy.sum(), 1e-4)
        exact = streamed(
            labels, logits, [np.arange(IMAGES)], IMAGES, destination=destination, energy=True
        )
        close(exact.null(sums).energy, stored.energy, 1e-4)


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_draws_are_permutations_within_blocks(data, destination):
    labels, logits = data
    blocks = random_blocks(IMAGES, 13, 0)
    found = streamed(
        labels, logits, blocks, destination=destination, draws=400, draw_blocks=2, seed=3
    )
    null = found.null(found.sums())
    assert null.null_ablation.shape == (400, CLUSTERS)
    # Sampled permutations spread as the exact moments say.
    shares = null.pvalues("sampled"), null.pvalues("moments")
    occupied = null.occupied & (null.zscores != 0)
    assert float((shares[0] - shares[1])[occupied].abs().mean()) < 0.03
    order = torch.arange(IMAGES)
    observed = streamed(labels, logits, blocks, destination=destination).sums()
    prototypes = observed.prototypes if destination == "token" else observed.pair_prototypes
    assert found.edges.draw_images == len(order)
    if destination == "token":
        close(null.ablation, prototypes.abs().mean((1, 2)))


def test_draws_of_some_blocks_are_compared_with_those_blocks(data):
    labels, logits = data
    blocks = random_blocks(IMAGES, 9, 0)
    found = streamed(labels, logits, blocks, draws=20, draw_blocks=1)
    null = found.null(found.sums())
    first = LogitSums(CLUSTERS, HEADS, TOKENS)
    first.add(labels[blocks[0]], logits[blocks[0]])
    close(null.ablation, first.prototypes.abs().mean((1, 2)))
    assert found.edges.draw_images == len(blocks[0])


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_totals_of_two_processes_add_up(data, destination):
    labels, logits = data
    blocks = random_blocks(IMAGES, 5, 0)
    options = {"destination": destination, "draws": 10, "draw_blocks": 6, "energy": True}
    whole = streamed(labels, logits, blocks, **options)
    halves = [BlockSums(CLUSTERS, whole.pilot, **options) for _ in range(2)]
    for number, chosen in enumerate(blocks):
        part = logits[chosen]
        halves[number % 2].add(
            labels[chosen], lambda heads, part=part: part[:, heads].transpose(0, 1).clone(), number
        )
    for name, total in halves[0].totals.items():
        total += halves[1].totals[name]
    sums = whole.sums()
    found, expected = halves[0].null(halves[0].sums()), whole.null(sums)
    for name in ("zscores", "energy", "exceed", "null_ablation", "null_injection"):
        close(getattr(found, name), getattr(expected, name), 1e-4)


def test_a_stored_trace_gives_the_same_null_block_by_block(data):
    labels, logits = data
    blocks = random_blocks(IMAGES, 8, 0)
    for destination in ("token", "cluster"):
        found = streamed(
            labels, logits, blocks, destination=destination, draws=10, draw_blocks=4, energy=True
        )
        sums = found.sums()
        stored: EdgeNull = block_null(
            make_trace(logits),
            np.arange(IMAGES),
            labels,
            sums,
            block=8,
            destination=destination,
            draws=10,
            seed=0,
        )
        null = found.null(sums)
        close(null.zscores, stored.zscores, 1e-4)
        close(null.null_ablation, stored.null_ablation, 1e-4)
        if destination == "cluster":
            close(
                found.pair_share(sums.position_mean),
                pair_position_share(labels, sums.position_mean, CLUSTERS),
            )


def test_a_logit_that_is_not_finite_is_noticed(data):
    labels, logits = data
    logits = logits.clone()
    logits[3, 0, 1, 1] = float("inf")
    assert not streamed(labels, logits, [np.arange(IMAGES)]).finite()
