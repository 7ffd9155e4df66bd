"""What the rankings that run the model share: sums over an edge's entries, and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from xaikit.interventions.live import LiveBatch
from xaikit.statistics.permutations import one_hot

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.towers import AttentionCall


def edge_sums(
    values: Float[Tensor, "image head token token"], batch: LiveBatch
) -> Float[Tensor, "image cluster head destination"]:
    """Sum entries over those that each edge covers, image by image."""
    sources = one_hot(batch.labels, batch.live.clusters).to(values.dtype)
    sums = torch.einsum("bik,bhij->bkhj", sources, values)
    if batch.live.destination == "cluster":
        sums = torch.einsum("bkhj,bjm->bkhm", sums, sources)
    return sums


def attributed(batch: LiveBatch, t: float) -> Float[Tensor, "image head token token"]:
    """``∂m/∂A · (M_pos − A)`` of every entry, the gradient at ``A + t (M_pos − A)``.

    `m` is ``1 − cos`` to the clean embedding, of each image by itself.
    """
    clean = F.normalize(batch.clean.embedding.detach().double(), dim=-1)
    with torch.inference_mode(False), torch.enable_grad():
        point, step, embedding = _on_the_way(batch, t)
        similarity = (clean * F.normalize(embedding.double(), dim=-1)).sum()
        (slope,) = torch.autograd.grad(similarity, point)
    return -slope * step


def image_directions(
    images: Sequence[int], count: int, dim: int, seed: int
) -> Float[Tensor, "direction image dim"]:
    """Standard normal directions of the embedding, each image's its own.

    Images whose directions are independent share the error of a few directions out among them,
    where common ones would all err alike. They depend on the image and the seed alone, so that
    neither batches nor processes change a score.
    """
    drawn = [np.random.default_rng([seed, 14, image]).normal(size=(count, dim)) for image in images]
    return torch.from_numpy(np.stack(drawn, axis=1))


def directions_for(after: float) -> int:
    """Backward passes that three plain forward passes pay for, from 1 to 12.

    Parameters
    ----------
    after : float
        Share of the blocks that run again, forward or backward, for an edit. A plain pass gives
        the clean embedding; what follows the edit then runs once forward and once backward for
        each direction, at about the same cost.
    """
    return int(min(12, max(1, (2.0 - after) // after)))


def moves(
    batch: LiveBatch, t: float, directions: Float[Tensor, "direction image dim"]
) -> Iterator[Float[Tensor, "image head token token"]]:
    """How far each entry's step to the mean moves the embedding along given directions.

    First-order, at ``A + t (M_pos − A)``, in units of the clean embedding's length and only
    across it, since ``1 − cos`` does not see its length: half the sum of squares over an
    orthonormal basis is ``1 − cos``, to second order.

    Yields
    ------
    Tensor
        For each direction, ``direction · ∂embedding/∂A · (M_pos − A)`` of every entry.
    """
    own = batch.clean.embedding.detach().double()
    length = own.norm(dim=-1, keepdim=True)
    with torch.inference_mode(False), torch.enable_grad():
        point, step, embedding = _on_the_way(batch, t)
        for place, direction in enumerate(directions):
            inward = (own * direction).sum(-1, keepdim=True)
            across = direction - inward * own / length.square()
            along = (embedding.double() / length * across).sum()
            last = place + 1 == len(directions)
            (slope,) = torch.autograd.grad(along, point, retain_graph=not last)
            yield slope * step


def _on_the_way(batch: LiveBatch, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits part of the way to the mean, the whole way, and the embedding they give."""
    goal = batch.live.position_mean
    seen: list[Tensor] = []

    def edit(_call: AttentionCall, logits: Tensor) -> Tensor:
        step = (goal - logits).detach()
        point = (logits.detach() + t * step).requires_grad_(True)
        seen.extend((point, step))
        return point

    embedding = batch.cache.outputs(edit).embedding
    return seen[0], seen[1], embedding


def midpoints(steps: int) -> list[float]:
    """Middles of equal parts of [0, 1]: where an integral along a path is sampled."""
    return [(step + 0.5) / steps for step in range(steps)]
