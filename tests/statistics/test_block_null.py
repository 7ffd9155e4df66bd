"""Crossed values of a block against their definition, and however they are computed."""

import numpy as np
import pytest
import torch

from xaikit.statistics import block_null
from xaikit.statistics.block_null import Block

IMAGES, TOKENS, CLUSTERS = 5, 7, 3


def made(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLUSTERS, (IMAGES, TOKENS))
    logits = rng.normal(size=(IMAGES, TOKENS, TOKENS))
    return labels, logits - logits.mean(0)


def defined(labels, logits, pairs):
    """What an edge gains from image `b` under the map of another one, centred over maps."""
    maps = (labels[..., None] == np.arange(CLUSTERS)).astype(float)
    found = np.einsum("mik,bij->mkbj", maps, logits)
    if pairs:
        found = np.einsum("mik,bij,mjl->mkbl", maps, logits, maps)
    return found - found.mean(0)


def crossed(block, logits, pairs):
    values = torch.from_numpy(logits).float()
    return torch.cat([part.clone() for _, part in block.crossed(values, pairs)], 2)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("buffer", [1, 1 << 26])
def test_crossed_values_are_their_definition(pairs, buffer, monkeypatch):
    monkeypatch.setattr(block_null, "BUFFER", buffer)
    labels, logits = made()
    found = crossed(Block(torch.from_numpy(labels), CLUSTERS, 0), logits, pairs)
    np.testing.assert_allclose(found, defined(labels, logits, pairs), atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True])
def test_crossed_values_of_a_head_hold_nothing_of_the_head_before(pairs):
    labels, logits = made()
    block = Block(torch.from_numpy(labels), CLUSTERS, 0)
    first = crossed(block, logits, pairs)
    crossed(block, 100.0 * logits[::-1].copy(), pairs)
    assert torch.equal(crossed(block, logits, pairs), first)


@pytest.mark.parametrize("pairs", [False, True])
def test_products_as_on_accelerators_give_the_same(pairs):
    labels, logits = made(1)
    block = Block(torch.from_numpy(labels), CLUSTERS, 0)
    found = block._multiplied(torch.from_numpy(logits).float(), pairs)
    np.testing.assert_allclose(found, defined(labels, logits, pairs), atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True])
def test_crossed_values_are_equal_for_any_number_of_threads(pairs):
    labels = torch.randint(16, (32, 65), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(32, 65, 65, generator=torch.Generator().manual_seed(1)).numpy()
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(crossed(Block(labels, 16, 0), logits, pairs))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("summed", [block_null.rows_added, block_null.rows_multiplied])
def test_values_of_draws_are_added_whichever_way(summed, rng):
    values = torch.from_numpy(rng.normal(size=(6, 3, 4, 7))).float()
    orders = torch.from_numpy(np.stack([rng.permutation(6)[:4] for _ in range(5)]))
    expected = [
        torch.stack([values[at, :, image].double() for image, at in enumerate(row)]).sum(0)
        for row in orders
    ]
    torch.testing.assert_close(
        summed(values, orders).double(), torch.stack(expected).flatten(1), rtol=0, atol=1e-6
    )


def test_rows_of_draws_have_the_same_bits_for_any_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(32, 16, 32, 197, generator=generator)
    chosen = torch.randint(32, (201, 32), generator=generator)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(block_null.rows_added(values, chosen))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
