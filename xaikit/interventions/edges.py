"""Live effects of single edges, against random edges of like cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.interventions.covers import SiteEdge, edge_key, flat_place, join_tables
from xaikit.interventions.live import Live, Patch
from xaikit.interventions.patches import edges_patch
from xaikit.statistics.multiple import benjamini_hochberg, permutation_pvalues

if TYPE_CHECKING:
    from torch import Tensor

SIZE_RATIO = 1.25
"""Largest ratio of cover between an edge and the random edges it is compared with."""


@dataclass(frozen=True, kw_only=True)
class EdgeComparison:
    """Edges to test and the random edges that each is compared with.

    Attributes
    ----------
    edges : list of SiteEdge
    drawn : list of SiteEdge
        Random edges, each measured once.
    pools : list of list of int
        For each tested edge, places in `drawn`.
    """

    edges: list[SiteEdge]
    drawn: list[SiteEdge]
    pools: list[list[int]]

    def patches(self, live: Live) -> list[Patch]:
        """What to measure: the edges, then the random ones."""
        return [edges_patch(self.edges, live.shapes), edges_patch(self.drawn, live.shapes)]

    def results(
        self, live: Live, measured: Sequence[dict[str, Tensor]]
    ) -> tuple[list[float], list[float], list[float]]:
        """Effects on the objective, p-values and Benjamini-Hochberg q-values of the edges.

        Effects that have a sign are compared by their size.
        """
        metric = live.objective.metric
        effects, null = measured[0][metric].mean(1), measured[1][metric].mean(1)
        sizes = (effects.abs(), null.abs()) if live.objective.signed else (effects, null)
        pvalues = torch.ones(len(self.edges), dtype=torch.float64)
        for place, pool in enumerate(self.pools):
            if pool:
                found = permutation_pvalues(sizes[0][place : place + 1], sizes[1][pool][:, None])
                pvalues[place] = found[0]
        return effects.tolist(), pvalues.tolist(), benjamini_hochberg(pvalues).tolist()


def compare_edges(live: Live, edges: Sequence[SiteEdge], draws: int, seed: int) -> EdgeComparison:
    """Choose the random edges: for each tested edge, `draws` of about as many entries.

    All edges of all layers are put in one random order and every tested edge takes the first
    that fit, so that edges of like cover share their random edges. Where fewer than `draws` lie
    within `SIZE_RATIO`, the nearest in cover fill up. An edge that covers nothing on these images
    has no pool, and p = 1.
    """
    shapes = live.shapes
    covers = join_tables(
        [count[:, None, :].expand(shape) for count, shape in zip(live.counts, shapes, strict=True)]
    ).numpy()
    order = np.random.default_rng([seed, 14]).permutation(covers.size)
    tested = {flat_place(edge, shapes) for edge in edges}
    order = order[(covers[order] > 0) & ~np.isin(order, list(tested))]
    places: dict[int, int] = {}
    pools = []
    for edge in edges:
        cover = covers[flat_place(edge, shapes)]
        chosen = _nearest(order, covers[order], cover, draws) if cover else []
        pools.append([places.setdefault(int(flat), len(places)) for flat in chosen])
    drawn = [edge_key(flat, shapes) for flat in places]
    return EdgeComparison(edges=list(edges), drawn=drawn, pools=pools)


def _nearest(order: np.ndarray, covers: np.ndarray, cover: float, draws: int) -> list[int]:
    ratio = np.abs(np.log(covers / cover))
    fitting = order[ratio <= math.log(SIZE_RATIO)]
    if len(fitting) < draws:
        fitting = order[np.argsort(ratio, kind="stable")]
    return [int(index) for index in fitting[:draws]]
