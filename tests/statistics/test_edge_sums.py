"""Sums of blocks of images against plain sums, in any order, and by several processes."""

from __future__ import annotations

import numpy as np
import pytest
import slow_definitions as slow
import torch
from edge_parts import TwoProcesses, part_of, shape_of, sums_of

from xaikit.statistics import block_null, edge_sums
from xaikit.statistics.block_null import Block, Draws, EdgeShape
from xaikit.statistics.edge_sums import exact_moments, shuffle_count
from xaikit.statistics.effects import injection_effects
from xaikit.statistics.parts import finished
from xaikit.statistics.permutations import image_permutations
from xaikit.statistics.sampling import random_blocks
from xaikit.statistics.totals import Totals

IMAGES, HEADS, TOKENS, K = 26, 3, 7, 4
WHERE = pytest.mark.parametrize("where", ["token", "cluster"])


@pytest.fixture
def data(rng):
    """Logits with position, image and label effects, and a cluster that is always at token 0."""
    labels = rng.integers(1, K, (IMAGES, TOKENS))
    labels[:, 0] = 0
    logits = rng.normal(size=(IMAGES, HEADS, TOKENS, TOKENS))
    logits += 5 * rng.normal(size=(1, HEADS, TOKENS, TOKENS)) + rng.normal(size=(IMAGES, 1, 1, 1))
    logits += 0.5 * labels[:, None, :, None]
    return torch.from_numpy(labels), torch.from_numpy(logits).float()


def bytes_of(part):
    sums, null = part.sums, part.null
    found = [sums.sums, sums.pair_sums, sums.position, sums.square, null.zscores, null.energy]
    found += [null.null_ablation, null.null_injection, null.exceed]
    found += [null.moment_pvalues, null.moment_methods]
    return [tensor.numpy().tobytes() for tensor in found]


@WHERE
def test_sums_of_blocks_are_plain_sums(data, where):
    labels, logits = data
    found = part_of(logits, labels, K, where, block=6).sums
    maps, values = torch.nn.functional.one_hot(labels, K).double(), logits.double()
    per_image = maps.sum(1)
    plain = {
        "counts": per_image.sum(0),
        "position_counts": maps.sum(0).T,
        "position": values.sum(0),
        "square": values.square().sum(),
        "pair_counts": per_image.T @ per_image,
        "row_mean": values.mean((0, 2)),
    }
    if where == "cluster":
        plain["pair_sums"] = torch.einsum("bik,bhij,bjl->khl", maps, values, maps)
    else:
        plain["sums"] = torch.einsum("bik,bhij->khj", maps, values)
    for name, expected in plain.items():
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-12, atol=1e-9)
    assert found.images == IMAGES


@WHERE
def test_energies_of_small_differences_between_large_logits(data, where):
    """About a mean that float32 does not hold."""
    labels, logits = data
    far = 1000.0 + 0.01 * logits
    found = part_of(far, labels, K, where, block=6).null.energy
    expected = slow.energy(far.double().numpy(), labels.numpy(), K, where)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=0)


@WHERE
def test_the_mean_that_sums_are_about_decides_nothing_but_energy(data, where):
    labels, logits = data
    blocks = list(enumerate(random_blocks(IMAGES, 8, 0)))
    nothing = torch.zeros(HEADS, TOKENS, TOKENS, dtype=torch.float64)
    means = [logits.double().mean(0), nothing, logits[:5].double().mean(0)]
    parts = [
        finished(sums_of(logits, labels, K, where, blocks, mean=mean), labels, None)
        for mean in means
    ]
    one = parts[0]
    for other in parts[1:]:
        for name in ("sums", "pair_sums", "position", "square"):
            own, its = (getattr(part.sums, name) for part in (one, other))
            torch.testing.assert_close(own, its, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.null.zscores, other.null.zscores, rtol=0, atol=2e-4)


@WHERE
def test_crossed_values_in_slabs_are_the_same(data, where, monkeypatch):
    labels, logits = data
    whole = part_of(logits, labels, K, where, block=13, draws=9)
    monkeypatch.setattr(block_null, "BUFFER", 1)
    slabs = part_of(logits, labels, K, where, block=13, draws=9)
    for name in ("zscores", "null_ablation", "null_injection", "exceed"):
        torch.testing.assert_close(
            getattr(whole.null, name), getattr(slabs.null, name), rtol=1e-5, atol=1e-6
        )


@WHERE
@pytest.mark.parametrize("exact", [True, False])
def test_two_processes_give_the_bits_of_one(data, where, exact):
    exact = exact and where == "token"
    labels, logits = data
    blocks = list(enumerate(random_blocks(IMAGES, 5, 0)))
    shape = shape_of(logits, K, where)

    def summed(chosen, drawn):
        draws = Draws(shape, 9, 0) if drawn else None
        options = {"energy": True, "exact": exact, "shuffles": 2}
        found = sums_of(logits, labels, K, where, [], **options)
        for number, rows in chosen:
            part = logits[rows].transpose(0, 1)
            found.add(
                labels[rows],
                lambda heads, part=part: part[heads].clone(),
                number,
                draws if number == 0 else None,
                lane=number,
            )
        return found, draws

    whole, draws = summed(blocks, True)
    first, own = summed(blocks[::2], True)
    second, _ = summed(blocks[1::2], False)
    names = sorted(first.totals._high)
    tables = {"high": second.totals._high, "low": second.totals._low}
    others = [{kind: table[n] for kind, table in tables.items() if n in table} for n in names]
    if exact:
        others += [{"part": second.covariance._products}, {"part": second.covariance._means}]
    first.reduce(TwoProcesses(iter(others)))
    one, two = finished(whole, labels, draws), finished(first, labels, own)
    assert bytes_of(one) == bytes_of(two)
    for a, b in zip(one.shuffled, two.shuffled, strict=True):
        assert torch.equal(a.sums, b.sums)
        assert torch.equal(a.pair_sums, b.pair_sums)


def test_totals_are_the_same_in_any_order(rng):
    parts = torch.from_numpy(rng.normal(size=(200, 50)) * 10.0 ** rng.integers(-8, 8, (200, 1)))
    found = []
    for order in (range(200), rng.permutation(200), range(199, -1, -1)):
        totals = Totals()
        totals.new("sum", 50)
        for at in order:
            totals.add("sum", parts[at])
        found.append(totals.value("sum"))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    plain = parts[torch.arange(199, -1, -1)].cumsum(0)[-1]
    assert not torch.equal(found[0], plain)


@WHERE
def test_draws_of_some_blocks_are_compared_with_those_blocks(data, where):
    labels, logits = data
    blocks = random_blocks(IMAGES, 9, 0)
    whole = part_of(logits[blocks[0]], labels[blocks[0]], K, where, draws=20, blocks=[np.arange(9)])
    shape = shape_of(logits, K, where)
    draws = Draws(shape, 20, 0)
    found = sums_of(logits, labels, K, where, [])
    for number, rows in enumerate(blocks):
        part = logits[rows].transpose(0, 1)
        found.add(
            labels[rows],
            lambda heads, part=part: part[heads].clone(),
            number,
            draws if number == 0 else None,
        )
    null = finished(found, labels, draws).null
    first = slow.cell_means(logits[blocks[0]].double().numpy(), labels[blocks[0]].numpy(), K, where)
    # Injection is weighted by the drawn blocks' rows, not by those of all images.
    for k in range(K):
        expected = slow.injection_effect(first, labels[blocks[0]].numpy(), k, where)
        assert float(null.injection[k]) == pytest.approx(expected, rel=1e-5)
        expected = slow.ablation_effect(first, labels[blocks[0]].numpy(), k, where)
        assert float(null.ablation[k]) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(null.null_injection, whole.null.null_injection, rtol=1e-4, atol=1e-6)
    assert null.draw_images == len(blocks[0])


def test_blocks_are_permuted_by_permutations_of_their_own(data):
    labels, logits = data
    same = np.tile(np.arange(13), 2)
    draws = Draws(shape_of(logits, K, "token"), 30, 0)
    found = sums_of(logits[same], labels[same], K, "token", [])
    chosen = []
    for number in range(2):
        rows = same[:13]
        part = logits[rows].transpose(0, 1)
        found.add(labels[rows], lambda heads, part=part: part[heads].clone(), number, draws)
        chosen.append(draws._orders.clone())
    assert torch.equal(chosen[0][0], chosen[1][0])
    assert not torch.equal(chosen[0][1:], chosen[1][1:])


@WHERE
def test_shuffled_sums_are_those_of_permutations_that_move_the_label_maps(data, where):
    labels, logits = data
    rows = torch.arange(9)
    sums = sums_of(logits, labels, K, where, [(2, rows)], shuffles=3, seed=5)
    # Not the draws behind the null, which the seed itself gives, and not the labels as they are.
    orders = image_permutations(9, 3, 5 + 1 + 7919 * 2)
    values = logits[rows].double()
    found = sums.totals.value("shuffled")
    for at, order in enumerate(orders):
        maps = torch.nn.functional.one_hot(labels[rows][order], K).double()
        expected = torch.einsum("bik,bhij->hkj", maps, values)
        if where == "cluster":
            expected = torch.einsum("bik,bhij,bjl->hkl", maps, values, maps)
        torch.testing.assert_close(found[:, at], expected, rtol=1e-4, atol=1e-4)


def test_the_first_draw_leaves_labels_as_they_are_and_seeds_and_blocks_give_others(data):
    labels, _ = data
    block = Block(labels, K, 1)
    orders = block.orders(2, 3)
    assert orders[0].tolist() == list(range(IMAGES))
    assert torch.equal(orders, block.orders(5, 3)[:3])
    assert np.array_equal(orders[1:], image_permutations(IMAGES, 2, 3 + 7919))
    assert not torch.equal(orders[1:], block.orders(2, 4)[1:])
    assert not torch.equal(orders[1:], Block(labels, K, 2).orders(2, 3)[1:])
    # As many images in another block are another list.
    one, other = (image_permutations(images, 1, 0)[0].tolist() for images in (6, 7))
    assert [at for at in other if at < 6] != one
    assert image_permutations(4, 0, 0).shape == (0, 4)
    assert image_permutations(4, 1, 0).shape == (1, 4)


def test_shuffles_and_exact_moments_have_their_limits():
    def shape(heads: int, tokens: int, clusters: int = 2, pairs: bool = False) -> EdgeShape:
        return EdgeShape(clusters, heads, tokens, pairs)

    limit = edge_sums.EXACT_CUBE
    assert exact_moments(shape(limit // 8, 2), 0)
    assert not exact_moments(shape(limit // 8 + 1, 2), 0)
    assert not exact_moments(shape(1, 2), 32)
    assert not exact_moments(shape(1, 2, pairs=True), 0)
    room = edge_sums._SHUFFLE_BYTES // 16
    assert shuffle_count(shape(1, 4)) == edge_sums.SHUFFLES
    assert shuffle_count(shape(1, room // 6, 2)) == 3
    assert shuffle_count(shape(1, room // 6 + 1, 2)) == 2
    assert shuffle_count(shape(4, room, 2)) == 1


def test_energy_is_the_sum_of_squares_about_the_mean_that_is_given(data):
    labels, logits = data
    mean = torch.full((HEADS, TOKENS, TOKENS), 0.5, dtype=torch.float64)
    blocks = list(enumerate(random_blocks(IMAGES, 9, 0)))
    sums = sums_of(logits, labels, K, "token", blocks, mean=mean, energy=True)
    maps = torch.nn.functional.one_hot(labels, K).double()
    expected = torch.einsum("bik,bhij->hkj", maps, (logits.double() - 0.5).square())
    torch.testing.assert_close(sums.totals.value("energy"), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_is_noticed(data, value):
    labels, logits = data
    blocks = list(enumerate(random_blocks(IMAGES, 9, 0)))
    assert sums_of(logits, labels, K, "token", blocks, null=False).finite()
    broken = logits.clone()
    broken[7, 1, 2, 3] = value
    mean = logits.double().mean(0)
    assert not sums_of(broken, labels, K, "token", blocks, mean=mean, null=False).finite()


def test_moments_are_added_up_only_where_they_are_wanted(data):
    labels, logits = data

    def names(**wanted: bool) -> set[str]:
        found = sums_of(logits, labels, K, "token", [], **wanted).totals
        every = {"excess", "variance", "arrangements", *edge_sums.SHAPE}
        return {name for name in every if name in found}

    every = {"excess", "variance", "arrangements", *edge_sums.SHAPE}
    assert names() == every
    assert names(exact=True) == every
    assert names(tails=False) == {"excess", "variance"}
    assert names(tails=False, exact=True) == set()
    assert names(null=False) == set()


@pytest.mark.parametrize("pairs", [True, False])
def test_injection_by_sorting_is_the_sum_over_pairs(rng, pairs):
    P = torch.from_numpy(rng.normal(size=(9, 2, 9 if pairs else 5)))
    P[3] = P[4]
    rows = torch.from_numpy(rng.integers(0, 20, 9)).double()
    entries = rows[:, None] * rows if pairs else None
    found = injection_effects(P, rows, entries)
    for k in range(9):
        others = [o for o in range(9) if o != k]
        if pairs:
            weights = entries.sum(1)
            total = sum(((P[k] - P[o]).abs().mean(0) * entries[o]).sum() for o in others)
        else:
            weights = rows
            total = sum((P[k] - P[o]).abs().mean() * rows[o] for o in others)
        expected = total / sum(weights[o] for o in others)
        assert float(found[k]) == pytest.approx(float(expected), rel=1e-12)
