"""Labels that follow from positions alone, and the sums they make."""

from __future__ import annotations

import pytest
import slow_definitions as slow
import torch
from edge_parts import part_of

from xaikit.statistics.relabel import position_clusters, positioned_sums


@pytest.mark.parametrize(("grid", "halves"), [([2, 4], "aabbaabb"), ([4, 2], "aaaabbbb")])
def test_positions_are_near_where_rows_and_columns_of_the_grid_are(
    grid: list[int], halves: str
) -> None:
    """A wide grid is cut into a left and a right half, a tall one into top and bottom."""
    found = position_clusters(9, 1, grid, 3, seed=0)
    one, other = int(found[1]), int(found[8])
    assert len({int(found[0]), one, other}) == 3
    assert found[1:].tolist() == [{"a": one, "b": other}[half] for half in halves]


def test_another_seed_starts_elsewhere() -> None:
    """A square is cut in three in more ways than one."""
    cuts = {tuple(position_clusters(17, 1, [4, 4], 4, seed=seed).tolist()) for seed in range(1, 9)}
    assert len(cuts) > 1


@pytest.mark.parametrize("pairs", [False, True])
def test_sums_by_position_are_those_of_labels_that_are_the_same_in_every_image(
    pairs: bool,
) -> None:
    logits, labels = slow.random_case(3, B=5, N=4)
    images = len(logits)
    places = torch.tensor([2, 0, 0, 1])
    where = "cluster" if pairs else "token"
    fixed = places.expand(images, -1).numpy()
    base, expected = (part_of(logits, each, 3, where).sums for each in (labels % 3, fixed))
    found = positioned_sums(base, places, pairs)
    wanted = ["images", "counts", "position_counts", "pair_counts", "position", "square"]
    for name in [*wanted, "pair_sums" if pairs else "sums"]:
        own, other = (torch.as_tensor(getattr(each, name)) for each in (found, expected))
        torch.testing.assert_close(own, other, msg=name)
