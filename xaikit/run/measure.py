"""Asking the model how much each token's attention matters, for guided clusters to learn from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from xaikit.images import NoUsableImageError, iter_batches
from xaikit.passes.feed import LayerPair, chunks
from xaikit.passes.plan import own_blocks
from xaikit.rankings.gradients import HALF_WAY, directions_for, image_directions
from xaikit.statistics.guided_targets import move_strengths
from xaikit.statistics.totals import as_float64
from xaikit.towers import BlockCache

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.images import Batch
    from xaikit.passes.guided import Measure
    from xaikit.run.subject import Subject
    from xaikit.statistics.prefix import PrefixClusters
    from xaikit.towers import AttentionCall

_BATCH = 16


def model_measure(subject: Subject) -> Measure:
    """A measure of the moves of the embedding that tokens' rows and columns make."""

    def measure(
        means: Mapping[LayerPair, Tensor], images: Sequence[int], shared: PrefixClusters
    ) -> dict[LayerPair, dict[int, Tensor]]:
        return {
            pair: _strengths(subject, pair[1], mean, images, shared.tokens)
            for pair, mean in means.items()
        }

    return measure


def _strengths(
    subject: Subject, layer: int, mean: Tensor, images: Sequence[int], prefix: int
) -> dict[int, Tensor]:
    tower = subject.tower
    count = int(directions_for((tower.info.layers - layer) / tower.info.layers))
    goal = mean.float().to(tower.device)
    blocks = own_blocks(chunks(np.array(images), _BATCH), subject.world)
    found: dict[int, Tensor] = {}
    done, total = 0, sum(len(block.images) for block in blocks)
    for block in blocks:
        for batch in _read(subject, block.images.tolist()):
            cache = BlockCache(tower, layer).fill(batch.pixels.to(tower.device))
            moves = move_strengths(_moves(cache, goal, batch.indices, count), prefix).cpu()
            found |= dict(zip(batch.indices, moves, strict=True))
        done += len(block.images)
        subject.progress("images measured", done, total)
    return found


def _read(subject: Subject, images: list[int]) -> Iterator[Batch]:
    """The usable ones of some images, in one batch: whatever ``--batch-size`` is, the same sums."""
    with contextlib.suppress(NoUsableImageError):
        yield from iter_batches(
            subject.source,
            subject.tower.preprocess,
            batch_size=_BATCH,
            indices=images,
            workers=subject.options.workers,
        )


def _moves(
    cache: BlockCache, goal: Tensor, images: Sequence[int], count: int
) -> Iterator[Float[Tensor, "image head token token"]]:
    """Each entry's move of the unit embedding along each direction, half-way to the mean."""
    steps: list[Tensor] = []
    points: list[Tensor] = []

    def edit(_call: AttentionCall, logits: Tensor) -> Tensor:
        steps.append((goal - logits).detach())
        points.append((logits.detach() + HALF_WAY * steps[0]).requires_grad_(True))
        return points[0]

    with torch.inference_mode(False), torch.enable_grad():
        unit = F.normalize(as_float64(cache.outputs(edit).embedding), dim=-1)
        # Directions of a fixed seed: none enters guided clusters.
        directions = image_directions(images, count, unit.shape[-1], 0).to(unit.device)
        for place, direction in enumerate(directions):
            more = place + 1 < count
            (slope,) = torch.autograd.grad((unit * direction).sum(), points[0], retain_graph=more)
            yield slope * steps[0]
