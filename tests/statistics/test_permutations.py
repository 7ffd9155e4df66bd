"""Sums over the entries of edges against their definition, and however they are computed."""

import numpy as np
import pytest
import torch

from xaikit.statistics.permutations import entry_sums, image_permutations, one_hot, sum_by_label

IMAGES, TOKENS, CLUSTERS = 3, 6, 4


def made(dtype=torch.float64):
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, CLUSTERS, (IMAGES, TOKENS)))
    return labels, torch.from_numpy(rng.normal(size=(IMAGES, TOKENS, TOKENS))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pairs", [False, True])
def test_entry_sums_are_sums_over_the_entries_of_each_edge(pairs, dtype):
    labels, values = made(dtype)
    expected = np.zeros((CLUSTERS, CLUSTERS if pairs else TOKENS))
    for b, i, j in np.ndindex(IMAGES, TOKENS, TOKENS):
        where = int(labels[b, j]) if pairs else j
        expected[int(labels[b, i]), where] += float(values[b, i, j])
    found = entry_sums(labels, values, CLUSTERS, pairs)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sums_by_label_are_products_with_indicators():
    labels, values = made()
    wide = values[..., None].expand(-1, -1, -1, 2)
    expected = torch.einsum("btk,bt...->bk...", one_hot(labels, CLUSTERS).double(), wide)
    torch.testing.assert_close(sum_by_label(labels, wide, CLUSTERS), expected)


@pytest.mark.parametrize("pairs", [False, True])
def test_entry_sums_have_the_same_bits_for_any_number_of_threads(pairs):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (8, 197), generator=generator)
    values = torch.randn(8, 197, 197, generator=generator)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(entry_sums(labels, values, 5, pairs))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_draw_is_the_same_however_many_are_drawn():
    few, many = image_permutations(9, 2, 5), image_permutations(9, 7, 5)
    np.testing.assert_array_equal(few, many[:2])
    assert sorted(many[6]) == list(range(9))
    assert not np.array_equal(many, image_permutations(9, 7, 6))
