"""`rows`: edges by the live effect of their rows, shared out by output change; no gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.interventions.metrics import cosine_distance
from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import edge_sums
from xaikit.towers.projection import written_values

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live, LiveBatch


def _score(_fit: Fit, live: Live) -> Tensor:
    """Effect of ablating a cluster's rows in one head, shared out over their destinations.

    ``Σ_images m(k, h) · c(k, h, j) / Σ_j c(k, h, j)``: `m` is ``1 − cos`` when all logits of the
    rows of k in head h are set to the mean, one forward pass from the edited block on for each of
    the `K·H` pairs. `c` is how much each entry contributes to the change of its head's output:
    the change of the softmax when only that logit goes to the mean, to first order half-way,
    times the projection of ``W_O v_j`` on the change that all entries of the row make together.
    """
    total = torch.zeros(live.shape, dtype=torch.float64)
    with torch.no_grad():
        for batch in live.batches(live.progress, "images scored"):
            parts = edge_sums(contributions(batch).double(), batch)
            whole = parts.sum(-1, keepdim=True)
            # Contributions add up to a squared length; a row that does not change has none.
            shares = torch.where(whole > 0, parts / whole.clamp(min=1e-30), 0.0)
            total += (row_effects(batch)[..., None] * shares).sum(0).cpu()
    return total


def contributions(batch: LiveBatch) -> Tensor:
    """Part of each entry in the squared change of its head's output ``[B, H, N, N]``."""
    live = batch.live
    call = batch.call()
    logits = call.logits()
    before, after = logits.softmax(-1), live.position_mean.softmax(-1)
    written = written_values(live.tower, live.layer, call)
    middle = (before + after) / 2
    change = (after - before) @ written
    usual = middle @ written
    pull = torch.einsum("bhio,bhjo->bhij", change, written)
    pull -= (change * usual).sum(-1, keepdim=True)
    return middle * (live.position_mean - logits) * pull


def row_effects(batch: LiveBatch) -> Tensor:
    """``1 − cos`` when the rows of a cluster in one head are ablated ``[B, K, H]``."""
    clusters, heads, _ = batch.live.shape
    images, tokens = batch.labels.shape
    clean = batch.clean.embedding
    found = torch.zeros(images, clusters, heads, dtype=torch.float64, device=clean.device)
    for cluster in batch.labels.unique().tolist():
        rows = (batch.labels == cluster).unsqueeze(2).expand(-1, -1, tokens)
        for head in range(heads):
            mask = rows.new_zeros(images, heads, tokens, tokens)
            mask[:, head] = rows
            edited = batch.cache.outputs(batch.ablation(mask)).embedding
            found[:, cluster, head] = cosine_distance(clean, edited)
    return found


RANKING = Ranking(key="rows", name="row effects, shared out", score=_score, needs_model=True)
