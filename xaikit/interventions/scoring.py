"""What the rankings that run the model share: sums over an edge's entries, and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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


def cosine_loss(batch: LiveBatch) -> Callable[[Tensor], Tensor]:
    """``1 − cos`` to the clean embedding, summed over the batch's images."""
    clean = F.normalize(batch.clean.embedding.double(), dim=-1)

    def loss(embedding: Float[Tensor, "image dim"]) -> Float[Tensor, ""]:
        return (1.0 - (clean * F.normalize(embedding.double(), dim=-1)).sum(-1)).sum()

    return loss


def gradients(
    batch: LiveBatch,
    point: Callable[[Tensor], Tensor],
    losses: Callable[[Tensor], Sequence[Tensor]],
) -> tuple[list[Float[Tensor, "image head token token"]], Float[Tensor, "image head token token"]]:
    """Gradients of functions of the embedding with respect to the logits, at a point.

    Parameters
    ----------
    point : callable
        ``point(clean logits)``: the logits to take the gradient at.
    losses : callable
        ``losses(embedding)``: scalars.

    Returns
    -------
    list of Tensor, Tensor
        One gradient for each scalar, and the clean logits.
    """
    seen: list[Tensor] = []

    def edit(_call: AttentionCall, logits: Tensor) -> Tensor:
        at = point(logits).detach().clone().requires_grad_(True)
        seen.extend((logits.detach(), at))
        return at

    with torch.inference_mode(False), torch.enable_grad():
        embedding = batch.cache.outputs(edit).embedding
        clean, at = seen
        values = list(losses(embedding))
        found = [
            torch.autograd.grad(value, at, retain_graph=place + 1 < len(values))[0]
            for place, value in enumerate(values)
        ]
    return found, clean


def midpoints(steps: int) -> list[float]:
    """Middles of equal parts of [0, 1]: where an integral along a path is sampled."""
    return [(step + 0.5) / steps for step in range(steps)]
