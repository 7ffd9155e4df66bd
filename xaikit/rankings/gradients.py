"""What the rankings that run the model share: sums over an edge's entries, and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from xaikit.interventions.batch import LiveBatch
from xaikit.interventions.sites import SitePart
from xaikit.statistics.permutations import one_hot
from xaikit.statistics.totals import as_float64

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.interventions.live import Live
    from xaikit.towers import AttentionCall, Edit, Outputs

HALF_WAY = 0.5


def edge_sums(
    values: Float[Tensor, "image head token token"], part: SitePart
) -> Float[Tensor, "image cluster head destination"]:
    """Sum entries over those that each edge covers, image by image."""
    sources = one_hot(part.labels.to(values.device), part.site.clusters).to(values.dtype)
    if part.site.destination == "cluster":
        # Destinations first: what is left for the sources is a fraction of the size.
        values = values @ sources.unsqueeze(1)
    return torch.einsum("bik,bhij->bkhj", sources, values)


def zero_tables(live: Live) -> list[Float[Tensor, "cluster head destination"]]:
    """Totals to add to, a table a site."""
    return [torch.zeros(shape, dtype=torch.float64) for shape in live.shapes]


def per_entry(
    totals: Sequence[Float[Tensor, "cluster head destination"]], live: Live
) -> tuple[Tensor, ...]:
    """Totals divided by the entries that each edge covers."""
    return tuple(
        total / count[:, None, :].clamp(min=1.0)
        for total, count in zip(totals, live.counts, strict=True)
    )


def attributed(batch: LiveBatch, t: float) -> list[Float[Tensor, "image head token token"]]:
    """``∂m/∂A · (M_pos − A)`` of every entry, a tensor a site, from one backward pass.

    `m` is the effect on the objective, of each image by itself; the gradient is taken where the
    logits of all edited layers are `t` of the way to their means.
    """
    with torch.inference_mode(False), torch.enable_grad():
        points, steps, outputs = _on_the_way(batch, t)
        slopes = torch.autograd.grad(batch.effect(outputs).sum(), points)
    return [slope * step for slope, step in zip(slopes, steps, strict=True)]


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


def directions_for(after: float, left: float = 1.4) -> float:
    """Backward passes that keep scores, or guided learning, within three plain forward passes.

    Parameters
    ----------
    after : float
        Share of the blocks that run again, forward or backward, for an edit. The point that
        gradients are taken at costs a plain pass, a backward pass through what follows the edit
        about 1.05 of a forward one, and sums over edges or over gates some .3 of a plain pass.
    left : float
        Plain passes that are left for backward ones.

    Returns
    -------
    float
        From 1 to 8: so many an image on average.
    """
    return min(8.0, max(1.0, left / after))


def moves(
    batch: LiveBatch, t: float, draw: Callable[[torch.Size], Float[Tensor, "direction image dim"]]
) -> Iterator[list[Float[Tensor, "image head token token"]]]:
    """How far each entry's step to the mean moves the embedding along given directions.

    First-order, where all edited layers are `t` of the way to their means, of the embedding
    scaled to length 1, since ``1 − cos`` does not see its length: half the sum of squares over an
    orthonormal basis is ``1 − cos``, to second order.

    Parameters
    ----------
    draw : callable
        ``draw(shape of the embeddings)`` gives the directions, one or more an image.

    Yields
    ------
    list of Tensor
        For each direction, ``direction · ∂unit embedding/∂A · (M_pos − A)`` of
        every entry, a tensor a site.
    """
    with torch.inference_mode(False), torch.enable_grad():
        points, steps, outputs = _on_the_way(batch, t)
        unit = F.normalize(as_float64(outputs.embedding), dim=-1)
        directions = draw(unit.shape).to(unit.device)
        for place, direction in enumerate(directions):
            last = place + 1 == len(directions)
            along = (unit * direction).sum()
            slopes = torch.autograd.grad(along, points, retain_graph=not last)
            yield [slope * step for slope, step in zip(slopes, steps, strict=True)]


def _on_the_way(batch: LiveBatch, t: float) -> tuple[list[Tensor], list[Tensor], Outputs]:
    """Logits part of the way to the mean, the whole way, and the outputs they give.

    Logits of a layer that depend on an edit below stay part of the graph: an edge also acts
    through the patterns of later layers.
    """
    points: dict[int, Tensor] = {}
    steps: dict[int, Tensor] = {}

    def on_the_way(layer: int, goal: Tensor) -> Edit:
        def edit(_call: AttentionCall, logits: Tensor) -> Tensor:
            step = goal - logits
            point = logits + t * step
            points[layer] = point if point.requires_grad else point.requires_grad_(True)
            steps[layer] = step.detach()
            return points[layer]

        return edit

    edits = {part.layer: on_the_way(part.layer, part.position_mean) for part in batch.sites}
    outputs = batch.cache.outputs(edits)
    layers = [part.layer for part in batch.sites]
    return [points[layer] for layer in layers], [steps[layer] for layer in layers], outputs


def midpoints(steps: int) -> list[float]:
    """Middles of equal parts of [0, 1]: where an integral along a path is sampled."""
    return [(step + 0.5) / steps for step in range(steps)]
