"""Statistics of a part of the images from arrays, as passes add them up."""

from __future__ import annotations

import numpy as np
import torch

from xaikit.distributed import World
from xaikit.statistics.block_null import Draws, EdgeShape
from xaikit.statistics.edge_sums import EdgeSums, exact_moments
from xaikit.statistics.parts import finished
from xaikit.statistics.sampling import random_blocks


def shape_of(A, K, where):
    return EdgeShape(K, A.shape[1], A.shape[2], where == "cluster")


def sums_of(A, c, K, where, blocks, *, mean=None, draws=None, **options):
    """`EdgeSums` of logits ``[B, H, N, N]`` and labels ``[B, N]``, block by block."""
    logits, labels = torch.as_tensor(A).float(), torch.as_tensor(c)
    mean = logits.double().mean(0) if mean is None else mean
    found = EdgeSums(shape_of(logits, K, where), mean, **options)
    for number, chosen in blocks:
        part = logits[chosen].transpose(0, 1)
        found.add(labels[chosen], lambda heads, part=part: part[heads].clone(), number, draws)
    return found


def part_of(A, c, K, where, *, draws=0, seed=0, block=0, blocks=None, exact=None, **options):
    """The finished `Part`, with sampled permutations where `draws` are asked for."""
    A, c = np.asarray(A), np.asarray(c)
    shape = shape_of(A, K, where)
    blocks = random_blocks(len(A), block or 64, seed) if blocks is None else blocks
    drawn = Draws(shape, draws, seed) if draws else None
    found = sums_of(
        A,
        c,
        K,
        where,
        list(enumerate(blocks)),
        draws=drawn,
        energy=True,
        exact=exact_moments(shape, block) if exact is None else exact,
        seed=seed,
        **options,
    )
    order = np.concatenate(blocks)
    return finished(found, torch.from_numpy(c[np.sort(order)]), drawn)


class TwoProcesses(World):
    """The first of two processes, which is given the other one's tensors."""

    def __init__(self, other):
        super().__init__(0, 2)
        self._other = other

    def gather(self, tensors):
        return [dict(tensors), next(self._other)]
