"""The few logits that testing a circuit's edges needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.passes.feed import ATTENTION, Attention, SeenBlock, Visitor

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.edges import Edge

TEST_IMAGES = 256
"""At most so many test images are read again."""
COLUMN_BYTES = 1 << 30
"""Of one pair of layers."""

Column = tuple[int, int | None]
"""Head, and destination token; None for all of them."""


def column_of(edge: Edge) -> Column:
    """The column that an edge's test reads."""
    return edge.head, edge.dst_token


def tested_images(
    images: Sequence[int], columns: Sequence[Column], tokens: int, seed: int
) -> np.ndarray:
    """The test images to read again, ascending: as many as fit, chosen at random.

    A smaller number takes a part of what a larger one takes.
    """
    ordered = np.sort(np.asarray(images, dtype=int))
    size = sum(4 * tokens * (tokens if dst is None else 1) for _, dst in set(columns))
    most = max(2, min(TEST_IMAGES, COLUMN_BYTES // max(size, 1)))
    if len(ordered) <= most:
        return ordered
    return np.sort(np.random.default_rng([seed, 5]).permutation(ordered)[:most])


class Columns(Visitor):
    """Logits of some columns.

    Parameters
    ----------
    columns : sequence of Column
    images : Int[ndarray, "image"]
        Candidates to take, ascending; others that are shown are passed over.
    """

    needs = frozenset({ATTENTION})

    def __init__(self, columns: Sequence[Column], images: np.ndarray) -> None:
        self._columns = sorted(set(columns), key=str)
        self._images = images
        self._parts: dict[Column, list[Tensor]] = {column: [] for column in self._columns}

    def bytes_needed(self, tokens: int) -> int:
        """Bytes that the columns take once they are read."""
        return len(self._images) * sum(
            4 * tokens * (tokens if dst is None else 1) for _, dst in self._columns
        )

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """Take a block's columns."""
        own = torch.from_numpy(np.flatnonzero(np.isin(block.images, self._images)))
        if not len(own):
            return
        by_head: dict[int, Tensor] = {}
        for column in self._columns:
            head, dst = column
            if head not in by_head:
                found = attention.logits(slice(head, head + 1))[0]
                by_head = {head: found[own.to(found.device)].cpu()}
            logits = by_head[head]
            self._parts[column].append(logits if dst is None else logits[..., dst].clone())

    def of(self, edge: Edge) -> Tensor:
        """Logits of an edge's column ``[image, token]``, or ``[image, token, token]``."""
        return torch.cat(self._parts[column_of(edge)])
