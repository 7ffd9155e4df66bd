"""Directions of a head: they add up to the logits, and find what was planted."""

from __future__ import annotations

import torch

from xaikit.report.page.why import carried, directions


def test_directions_add_up_to_an_edges_mean_logit() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(6, 9, 4, generator=generator) for _ in range(2))
    labels = torch.randint(0, 3, (6, 9), generator=generator)
    found = directions(query, key)
    own, other = (x - x.reshape(-1, 4).mean(0) for x in (query, key))
    logits = own @ other.transpose(1, 2)
    queries, keys = (labels == 0), (labels == 2)
    pairs = queries[:, :, None] & keys[:, None, :]
    parts = carried(found, queries.double(), keys.double())
    torch.testing.assert_close(parts.sum(), logits[pairs].mean().double(), rtol=1e-5, atol=1e-6)
    rebuilt = torch.einsum("bnd,d,bmd->bnm", found.query, found.values, found.key)
    torch.testing.assert_close(rebuilt, logits.double(), rtol=1e-5, atol=1e-5)


def test_directions_are_the_singular_vectors_of_all_logits() -> None:
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    found = directions(query, key)
    own, other = (x.reshape(-1, 4) - x.reshape(-1, 4).mean(0) for x in (query, key))
    left, values, right = torch.linalg.svd(own @ other.T)
    torch.testing.assert_close(found.values, values[:4])
    for at in range(4):
        # A singular vector's sign is free, but that of the pair is not.
        sign = torch.sign((found.query[..., at].flatten() * left[:, at]).sum())
        torch.testing.assert_close(found.query[..., at].flatten(), sign * left[:, at])
        torch.testing.assert_close(found.key[..., at].flatten(), sign * right[at])


def test_a_planted_direction_carries_its_edge() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = (0.1 * torch.randn(8, 10, 5, generator=generator) for _ in range(2))
    query[:, :3, 2] += 3.0
    key[:, 7:, 2] += 2.0
    found = directions(query, key)
    queries, keys = torch.zeros(8, 10), torch.zeros(8, 10)
    queries[:, :3], keys[:, 7:] = 1.0, 1.0
    parts = carried(found, queries, keys)
    assert parts[0] > 0.95 * parts.sum()
    assert set(found.query[..., 0].abs().topk(3, dim=1).indices.flatten().tolist()) == {0, 1, 2}
