"""`rows`: edges by the live effect of their rows, shared out by output change; no gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xaikit.interventions.covers import edge_set
from xaikit.rankings.base import Ranking
from xaikit.rankings.gradients import edge_sums, zero_tables
from xaikit.statistics.totals import as_float64, float64_home
from xaikit.towers.projection import written_values

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.interventions.batch import LiveBatch
    from xaikit.interventions.live import Live


def _score(live: Live) -> tuple[Tensor, ...]:
    """Effect of ablating a cluster's rows in one head, shared out over their destinations.

    ``Σ_images m(k, h) · c(k, h, j) / Σ_j c(k, h, j)``: `m` is the effect on the objective when
    all logits of the rows of k in head h are ablated, one forward pass from the lowest edited
    block on for each of the `K·H` pairs of a layer. `c` is how much each entry contributes to the
    change of its head's output: the change of the softmax when only that logit goes to the mean,
    to first order half-way, times the projection of ``W_O v_j`` on the change that all entries of
    the row make together.
    """
    totals = zero_tables(live)
    with torch.no_grad():
        for batch in live.batches(live.progress, "images scored"):
            for site, total in enumerate(totals):
                parts = edge_sums(as_float64(contributions(batch, site)), batch.sites[site])
                whole = parts.sum(-1, keepdim=True)
                # Contributions add up to a squared length; a row that does not change has none.
                shares = torch.where(whole > 0, parts / whole.clamp(min=1e-30), 0.0)
                total += (row_effects(batch, site)[..., None] * shares).sum(0).cpu()
    return tuple(totals)


def contributions(batch: LiveBatch, site: int) -> Tensor:
    """Part of each entry in the squared change of its head's output ``[B, H, N, N]``."""
    part, call = batch.sites[site], batch.calls[site]
    goal, logits = part.position_mean, call.logits()
    before, after = logits.softmax(-1), goal.softmax(-1)
    written = written_values(batch.live.tower, part.layer, call)
    middle = (before + after) / 2
    change = (after - before) @ written
    usual = middle @ written
    pull = torch.einsum("bhio,bhjo->bhij", change, written)
    pull -= (change * usual).sum(-1, keepdim=True)
    return middle * (goal - logits) * pull


def row_effects(batch: LiveBatch, site: int) -> Tensor:
    """Effect of ablating the rows of a cluster in one head of one layer ``[B, K, H]``."""
    shapes = batch.live.shapes
    clusters, heads, _ = shapes[site]
    found = torch.zeros(len(batch.images), clusters, heads, dtype=torch.float64)
    for cluster in batch.sites[site].labels.unique().tolist():
        for head in range(heads):
            edges = edge_set([], shapes)
            edges.tables[site][cluster, head] = True
            found[:, cluster, head] = batch.effect(batch.cache.outputs(batch.ablation(edges))).cpu()
    return found.to(float64_home(batch.clean.embedding.device))


RANKING = Ranking(
    key="rows", name="row effects, shared out", score=_score, needs_model=True, signed=True
)
