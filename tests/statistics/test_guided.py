"""Guided clusters against slow float64 definitions, and the promise of equal labels."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from xaikit.errors import UsageError
from xaikit.statistics.guided import (
    GuidedMap,
    GuidedTree,
    LearningRows,
    guided_tree,
    log_targets,
    principal_map,
    snapped,
    strength_columns,
)
from xaikit.statistics.guided_sums import GRID, GuidedSums, on_grid
from xaikit.statistics.guided_targets import move_strengths, pattern_strengths
from xaikit.statistics.guided_tree import divisive_tree

IMAGES, PATCHES, FFN, HEADS, DIM = 24, 9, 20, 2, 3


def made(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gates, and queries and keys that depend on them and on position."""
    rng = np.random.default_rng(seed)
    gates = (rng.random((IMAGES, PATCHES, FFN)) < 0.4).astype(np.uint8)
    values = []
    for _ in range(2):
        map_ = rng.normal(size=(FFN, HEADS * DIM)) * (np.arange(FFN) < 5)[:, None]
        place = rng.normal(size=(PATCHES, HEADS * DIM))
        flat = gates @ map_ + place + 0.3 * rng.normal(size=(IMAGES, PATCHES, HEADS * DIM))
        values.append(flat.reshape(IMAGES, PATCHES, HEADS, DIM).transpose(0, 2, 1, 3))
    query, key = (torch.from_numpy(each).float() for each in values)
    return torch.from_numpy(gates), query, key


def summed(data: tuple[Tensor, Tensor, Tensor], cuts: list[list[int]]) -> GuidedSums:
    sums = GuidedSums(FFN, HEADS, DIM, PATCHES)
    for part in cuts:
        sums.add(*(each[part] for each in data))
    return sums


def learning(data: tuple[Tensor, Tensor, Tensor], strengths: Tensor | None) -> LearningRows:
    packed = np.packbits(data[0].flatten(0, 1).numpy(), axis=1)
    return LearningRows(packed=torch.from_numpy(packed), width=FFN, strengths=strengths)


def learnt(data: tuple[Tensor, Tensor, Tensor], clusters: int = 6) -> GuidedMap:
    moments = summed(data, [list(range(IMAGES))]).moments()
    return guided_tree(moments, learning(data, None)).cut(clusters)


def test_sums_are_equal_to_the_bit_in_any_order_and_cut() -> None:
    data = made()
    whole = summed(data, [list(range(IMAGES))])
    order = np.random.default_rng(3).permutation(IMAGES).tolist()
    cut = summed(data, [order[:1], order[1:8], order[8:]])
    two = summed(data, [order[:11]])
    for name, total in summed(data, [order[11:]]).totals.items():
        assert torch.equal(whole.totals[name], cut.totals[name])
        assert torch.equal(whole.totals[name], two.totals[name] + total)


def test_the_half_precision_of_a_trace_is_read_as_it_is() -> None:
    gates, query, key = made()
    halves = (gates, query.half(), key.half())
    wide = (gates, query.half().double(), key.half().float())
    cuts = [list(range(IMAGES))]
    for name, total in summed(halves, cuts).totals.items():
        assert torch.equal(total, summed(wide, cuts).totals[name])


def test_columns_are_the_regression_of_scaled_targets_on_gates() -> None:
    gates, query, key = made()
    x = gates.double().flatten(0, 1)
    x = x - x.mean(0)
    moments = summed((gates, query, key), [list(range(IMAGES))]).moments()
    q, k = query.double(), key.double()
    expected = []
    for side, other, centred in ((q, k, True), (k, q, False)):
        for head in range(HEADS):
            metric_rows = other[:, head]
            if centred:
                metric_rows = metric_rows - metric_rows.mean(1, keepdim=True)
            metric_rows = metric_rows.flatten(0, 1)
            values, vectors = torch.linalg.eigh(metric_rows.T @ metric_rows / len(metric_rows))
            root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
            target = ((side[:, head] - side[:, head].mean(0)) @ root).flatten(0, 1)
            target = target / target.square().sum(1).mean().sqrt()
            expected.append(x.T @ target)
    torch.testing.assert_close(moments.gram, x.T @ x)
    torch.testing.assert_close(moments.columns(), torch.cat(expected, 1), rtol=1e-3, atol=5e-3)


def test_coordinates_are_the_principal_predictions() -> None:
    data = made()
    x = data[0].double().flatten(0, 1)
    x = x - x.mean(0)
    moments = summed(data, [list(range(IMAGES))]).moments()
    found = principal_map(moments.gram, moments.columns())
    ridge = moments.gram + 0.1 * moments.gram.trace() / FFN * torch.eye(FFN).double()
    predicted = x @ torch.linalg.inv(ridge) @ moments.columns()
    left, sizes, right = torch.linalg.svd(predicted, full_matrices=False)
    signs = torch.tensor([1.0 if row[row.abs().argmax()] > 0 else -1.0 for row in right[:4]])
    torch.testing.assert_close(x @ found, left[:, :4] * sizes[:4] * signs, rtol=1e-6, atol=1e-8)


def test_a_constant_target_and_dead_gates_do_no_harm() -> None:
    gates, query, key = made()
    gates[:, :, 3] = 0
    query[:, 1] = 2.0
    found = learnt((gates, query, key))
    assert torch.isfinite(found.projection).all()
    assert not found.projection[3].any()
    assert len(learnt((torch.ones_like(gates), query, key)).leaf_means) == 1


def test_labels_are_equal_for_any_batch_type_and_number_of_threads() -> None:
    data = made()
    found = learnt(data)
    labels = found.label(data[0])
    assert labels.shape == (IMAGES, PATCHES)
    assert len(labels.unique()) == 6
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for gates in (data[0], data[0].bool(), data[0].float()):
                one_by_one = torch.stack([found.label(row) for row in gates.flatten(0, 1)])
                assert torch.equal(one_by_one, labels.flatten())
            assert torch.equal(learnt(data).projection, found.projection)
    finally:
        torch.set_num_threads(threads)


def test_the_last_digits_of_gradients_do_not_reach_the_map() -> None:
    """Other numbers of threads and other devices add gradients up in another order."""
    data = made()
    moments = summed(data, [list(range(IMAGES))]).moments()
    rng = np.random.default_rng(8)
    strengths = torch.from_numpy(rng.lognormal(size=(IMAGES * PATCHES, 2 * HEADS))).float()
    found = guided_tree(moments, learning(data, strengths)).cut(6)
    for _ in range(5):
        noise = torch.from_numpy(rng.normal(size=strengths.shape)).float()
        near = guided_tree(moments, learning(data, strengths * (1 + 1e-6 * noise))).cut(6)
        for name, tensor in vars(found).items():
            assert torch.equal(getattr(near, name), tensor), name


@pytest.mark.parametrize("rows", [20, 3072])
def test_the_unit_is_a_hundredth_of_the_usual_entry_or_what_is_exact(rows: int) -> None:
    """A finer one would let the last digits of a gradient through."""
    wide = torch.from_numpy(np.random.default_rng(6).normal(size=(rows, 4)))
    unit = snapped(wide, torch.zeros(rows, dtype=torch.float64))[2]
    usual = float(wide.square().mean().sqrt())
    assert usual / 128 <= unit < usual / 64


def test_coordinates_are_whole_numbers_of_one_unit_and_so_exact() -> None:
    rng = np.random.default_rng(5)
    wide = torch.from_numpy(rng.normal(size=(3072, 4)) * rng.exponential(size=(3072, 1)) ** 3)
    projection, offset, unit = snapped(wide, torch.from_numpy(rng.random(3072)))
    units = (projection.double() / unit).abs().sum(0)
    assert units.max() <= 2**23
    # Rounding moves a coordinate by no more than a hundredth of what it varies by.
    assert unit <= wide.square().mean().sqrt() / 64
    # So many gates that exact sums need a coarser unit than that.
    many = torch.ones(1 << 17, 4, dtype=torch.float64)
    found, _, coarse = snapped(many, torch.zeros(1 << 17).double())
    assert (found.double() / coarse).abs().sum(0).max() <= 2**23
    for part in (projection, offset):
        assert torch.equal((part.double() / unit).round() * unit, part.double())
    gates = torch.from_numpy(rng.integers(0, 2, (50, 3072), dtype=np.uint8))
    means = torch.zeros(1, 4)
    z = GuidedMap(projection=projection, offset=offset, leaf_means=means).coordinates(gates)
    # float32, columns in another order: still the same number to the bit.
    shuffled = rng.permutation(3072)
    again = gates.float()[:, shuffled] @ projection[shuffled] - offset
    assert torch.equal(again.double(), z)
    torch.testing.assert_close(projection.double(), wide, rtol=0, atol=unit / 2)


def test_leaf_means_are_on_the_grid_of_the_coordinates() -> None:
    rng = np.random.default_rng(3)
    places = rng.integers(-999, 999, (40, 4)) * 0.25
    blank = torch.zeros(2, 4)
    tree = GuidedTree(projection=blank, offset=blank[0], unit=0.25, places=places)
    means = tree.cut(5).leaf_means.double()
    assert len(means) == 5
    assert torch.equal((means * 4).round() / 4, means)
    whole = torch.from_numpy(places).mean(0)
    torch.testing.assert_close(tree.cut(1).leaf_means[0].double(), whole, rtol=0, atol=0.125)


def test_ties_go_to_the_lowest_leaf() -> None:
    projection = torch.zeros(2, 4)
    projection[0, 0] = 2.0
    means = torch.tensor([[0.0, 0, 0, 0], [2.0, 0, 0, 0], [2.0, 0, 0, 0]])
    found = GuidedMap(projection=projection, offset=torch.tensor([-1.0, 0, 0, 0]), leaf_means=means)
    assert found.label(torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8)).tolist() == [0, 1]


def slow_tree(points: np.ndarray, leaves: int) -> list[list[int]]:
    def best(rows: list[int]) -> tuple[float, list[int], list[int]]:
        part = points[rows] - points[rows].mean(0)
        if len(rows) < 2 or not part.any():
            return 0.0, [], []
        axis = np.linalg.svd(part, full_matrices=False)[2][0]
        along = part @ axis
        found = (0.0, [], [])
        for cut in np.unique(along)[:-1]:
            near = along <= cut
            gain = (part**2).sum() - sum(
                ((side - side.mean(0)) ** 2).sum() for side in (part[near], part[~near])
            )
            if gain > found[0]:
                sides = [
                    [r for r, n in zip(rows, near, strict=True) if n == want] for want in (1, 0)
                ]
                found = (gain, *sides)
        return found

    groups = [list(range(len(points)))]
    while len(groups) < leaves:
        cuts = [best(rows) for rows in groups]
        place = max(range(len(groups)), key=lambda at: cuts[at][0])
        if cuts[place][0] <= 0:
            break
        groups[place : place + 1] = list(cuts[place][1:])
    return groups


def test_the_tree_is_the_slow_one() -> None:
    points = np.random.default_rng(2).normal(size=(120, 4)) * [3, 2, 1, 0.5]
    found = {frozenset(rows.tolist()) for rows in divisive_tree(points, 9)}
    assert found == {frozenset(rows) for rows in slow_tree(points, 9)}


def test_the_tree_orders_leaves_by_size_and_keeps_equal_rows_together() -> None:
    points = np.repeat(np.eye(4)[:3], [2, 5, 3], axis=0)
    assert [rows.tolist() for rows in divisive_tree(points, 8)] == [
        [2, 3, 4, 5, 6],
        [7, 8, 9],
        [0, 1],
    ]


def leaves(points: object, count: int) -> list[list[int]]:
    return [rows.tolist() for rows in divisive_tree(np.asarray(points, float), count)]


def test_the_leaf_that_gains_most_is_split_however_few_rows_it_has() -> None:
    points = [[at / 100] for at in range(6)] + [[100], [110]]
    assert leaves(points, 3) == [[0, 1, 2, 3, 4, 5], [6], [7]]


def test_of_two_leaves_that_gain_alike_the_older_is_split() -> None:
    assert leaves([[-11], [-9], [9], [11]], 3) == [[2, 3], [0], [1]]


def test_rows_at_one_place_of_the_axis_are_not_parted() -> None:
    # A cut between rows 1 and 2 would fall most, and be decided by the order of the rows.
    points = [[-2, 0], [0, 1.5], [0, -1.5], [2, 0]]
    assert leaves(points, 2) == [[1, 2, 3], [0]]
    assert leaves(np.array(points)[[0, 2, 1, 3]], 2) == [[1, 2, 3], [0]]


@pytest.mark.parametrize("way", [(3, 1), (3, -1), (-3, 1), (-3, -1), (1, -3), (-1, 3)])
def test_of_two_cuts_that_gain_alike_the_one_at_the_low_end_is_made(way: tuple[int, int]) -> None:
    # Low as the axis goes whose largest loading is positive, whatever the eigenvector's sign.
    upward = way[int(np.argmax(np.abs(way)))] > 0
    points = np.outer([0, 1, 2], way)
    assert leaves(points, 2) == ([[1, 2], [0]] if upward else [[0, 1], [2]])


@pytest.mark.parametrize("points", [np.empty((0, 4)), np.full((3, 4), np.nan)])
def test_the_tree_refuses_what_it_cannot_split(points: np.ndarray) -> None:
    with pytest.raises(UsageError):
        divisive_tree(points, 2)


def test_pattern_strengths_are_squared_distances_from_the_usual_pattern() -> None:
    logits = torch.randn(3, HEADS, 5, 5)
    usual = logits.mean(0)
    apart = (logits.softmax(-1) - usual.softmax(-1)).square()
    expected = torch.cat([apart.sum(3), apart.sum(2)], 1)[:, :, 1:].transpose(1, 2)
    found = pattern_strengths(logits, usual, 1)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[1:2], pattern_strengths(logits[1:2], usual, 1))


def test_move_strengths_are_root_mean_squares_over_directions() -> None:
    moves = torch.randn(4, 3, HEADS, 5, 5)
    rows, columns = moves.sum(4), moves.sum(3)
    expected = torch.cat([rows, columns], 2)[..., 2:].square().mean(0).sqrt().transpose(1, 2)
    torch.testing.assert_close(move_strengths(iter(moves), 2), expected)


def test_strengths_are_regressed_as_logarithms() -> None:
    data = made()
    strengths = torch.rand(IMAGES * PATCHES, 2 * HEADS) ** 3
    strengths[0] = 0.0
    moments = summed(data, [list(range(IMAGES))]).moments()
    logs = torch.log(strengths.double() + 0.001 * strengths.double().mean(0))
    logs = logs - logs.mean(0)
    torch.testing.assert_close(log_targets(strengths), logs, rtol=0, atol=GRID)
    x = data[0].double().flatten(0, 1)
    # Two targets, rows and columns of all heads, each of mean squared norm 1.
    sides = [side / side.square().sum(1).mean().sqrt() for side in logs.split(HEADS, 1)]
    expected = (x - x.mean(0)).T @ torch.cat(sides, 1)
    found = strength_columns(moments, learning(data, strengths))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    bare = guided_tree(moments, learning(data, None)).cut(4)
    guided = guided_tree(moments, learning(data, strengths)).cut(4)
    assert not torch.equal(bare.projection, guided.projection)


def test_a_position_effect_alone_leaves_no_target() -> None:
    rng = np.random.default_rng(1)
    gates = torch.from_numpy((rng.random((IMAGES, PATCHES, FFN)) < 0.5).astype(np.uint8))
    place = torch.from_numpy(rng.normal(size=(1, HEADS, PATCHES, DIM))).expand(IMAGES, -1, -1, -1)
    moments = summed((gates, place, place), [list(range(IMAGES))]).moments()
    assert not moments.columns().any()
    # The last digit of what was stored is none either, though a gate may decide it.
    near = place + GRID * gates[:, None, :, :1]
    moments = summed((gates, near, near), [list(range(IMAGES))]).moments()
    assert moments.cross.any()
    assert not moments.columns().any()


def test_totals_can_be_handed_over() -> None:
    data = made()
    sums = summed(data, [list(range(IMAGES))])
    other = GuidedSums(FFN, HEADS, DIM, PATCHES)
    other.load(sums.totals)
    one, two = (dataclasses.asdict(each.moments()) for each in (sums, other))
    assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(two[name])) for name in one)


def test_the_grid_rounds_to_the_nearest_multiple() -> None:
    values = torch.tensor([0.3, -1.7, 5.0])
    assert torch.equal(on_grid(values, 0.25), torch.tensor([0.25, -1.75, 5.0]).double())
