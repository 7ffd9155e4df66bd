"""Edges kept in part: every logit between its position's mean and the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from xaikit.interventions.covers import spread

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.interventions.live import LiveBatch
    from xaikit.interventions.sites import SitePart
    from xaikit.towers import AttentionCall, Edit, Outputs


def kept_in_part(batch: LiveBatch, amounts: Sequence[Float[Tensor, "k h d"]]) -> Outputs:
    """Outputs with ``M_pos + a (A − M_pos)`` in place of every logit, `a` its edge's amount.

    `A` is what the edited model itself computes, so that an edge of a layer also acts through the
    patterns of those above it. At 1 everywhere the model is untouched, at 0 everything is ablated.
    """

    def edit_of(part: SitePart, amount: Tensor) -> Edit:
        def edit(_call: AttentionCall, logits: Tensor) -> Tensor:
            share = spread(amount, part.labels, part.site.destination)
            return torch.lerp(part.position_mean.expand_as(logits), logits, share)

        return edit

    edits = {
        part.layer: edit_of(part, amount) for part, amount in zip(batch.sites, amounts, strict=True)
    }
    return batch.cache.outputs(edits)


def slopes(
    batch: LiveBatch, amounts: Sequence[Float[Tensor, "k h d"]]
) -> list[Float[Tensor, "k h d"]]:
    """How the effect on the objective, summed over the images, grows with each edge's amount."""
    with torch.inference_mode(False), torch.enable_grad():
        given = [each.detach().clone().requires_grad_(True) for each in amounts]
        effect = batch.effect(kept_in_part(batch, given)).sum()
        return list(torch.autograd.grad(effect, given))
