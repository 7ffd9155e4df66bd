"""The few logits that testing a circuit's edges needs, when there is no trace to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.images import iter_batches
from xaikit.progress import Progress
from xaikit.towers import capture

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.results import Edge
    from xaikit.artifacts.tensors import Features
    from xaikit.images import ImageSource
    from xaikit.towers import AttentionCall, AttentionTap, Tower

TEST_IMAGES = 256
"""At most so many test images are read again."""
_MEMORY = 1 << 30

Column = tuple[int, int, int | None]
"""Attention layer, head, and destination token; None for all of them."""


def column_of(after: int, edge: Edge) -> Column:
    """The column that an edge's test reads."""
    return after, edge.head, edge.dst_token


def tested_images(
    features: Features, columns: Sequence[Column], tokens: int, seed: int
) -> np.ndarray:
    """Positions of the test images to read again: as many as fit, chosen at random."""
    images = np.sort(features.test_images)
    size = sum(4 * tokens * (tokens if dst is None else 1) for _, _, dst in set(columns))
    most = max(2, min(TEST_IMAGES, _MEMORY // max(size, 1)))
    if len(images) <= most:
        return images
    return np.sort(np.random.default_rng([seed, 5]).choice(images, most, replace=False))


def read_columns(
    tower: Tower,
    source: ImageSource,
    columns: Sequence[Column],
    images: Sequence[int],
    *,
    batch_size: int,
    workers: int | None,
    progress: Progress,
) -> Mapping[Column, Tensor]:
    """Logits of some columns for the source's `images`, in one pass.

    Returns
    -------
    mapping of Column to Tensor
        ``[image, token]``, or ``[image, token, token]`` where the destination is None.
    """
    wanted: dict[int, set[Column]] = {}
    for column in columns:
        wanted.setdefault(column[0], set()).add(column)
    parts: dict[Column, list[Tensor]] = {column: [] for column in columns}

    def attention(after: int) -> AttentionTap:
        def tap(call: AttentionCall) -> None:
            for column in sorted(wanted[after], key=str):
                _, head, dst = column
                logits = call.logits_of(slice(None), slice(head, head + 1))[0]
                parts[column].append((logits if dst is None else logits[..., dst]).cpu())

        return tap

    done = 0
    for batch in iter_batches(
        source, tower.preprocess, batch_size=batch_size, indices=images, workers=workers
    ):
        capture(tower, batch.pixels, attention={after: attention(after) for after in wanted})
        done += len(batch)
        progress("test images read again", done, len(images))
    return {column: torch.cat(found).clone() for column, found in parts.items()}
