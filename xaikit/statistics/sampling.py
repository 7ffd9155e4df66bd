"""Which tokens clusters are learnt on: one rule for the stored and the streaming route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int


def sample_plan(
    images: Sequence[int], tokens: int, count: int, seed: int
) -> list[tuple[int, Int[np.ndarray, " row"]]]:
    """Choose tokens to learn from, without replacement.

    They come from ``min(B, ceil(2 * count / tokens))`` of the `B` images, so that a pass over the
    sample costs the same however many images there are.

    Parameters
    ----------
    images : sequence of int
        Images that may be used, ascending.
    tokens : int
        Tokens of an image.
    count : int
        Tokens to choose; 0 takes all.
    seed : int

    Returns
    -------
    list of (int, ndarray)
        Each chosen image, in order, and its chosen tokens, ascending; an image may have none.
    """
    if count == 0 or count >= len(images) * tokens:
        every = np.arange(tokens)
        return [(int(image), every) for image in images]
    rng = np.random.default_rng([seed, 2])
    wanted = min(len(images), -(-2 * count // tokens))
    chosen = np.sort(rng.choice(len(images), wanted, replace=False))
    rows = np.sort(rng.choice(wanted * tokens, count, replace=False))
    starts = np.searchsorted(rows, np.arange(1, wanted) * tokens)
    return [
        (int(images[at]), part % tokens)
        for at, part in zip(chosen, np.split(rows, starts), strict=True)
    ]


def random_blocks(images: int, block: int, seed: int) -> list[Int[np.ndarray, " image"]]:
    """Split image indices into random blocks of nearly equal size, at most `block`."""
    order = np.random.default_rng([seed, images, 1]).permutation(images)
    return [np.sort(part) for part in np.array_split(order, max(1, -(-images // block)))]
