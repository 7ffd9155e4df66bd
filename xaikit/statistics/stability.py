"""Edges under resampled images: the bootstrap in one pass, and how far two circuits agree.

A circuit of a resample depends on the images only through sums over them, so one pass suffices:
the sums of each image times how often each resample drew it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.permutations import one_hot
from xaikit.statistics.sums import contrast

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

WEIGHTED = ("weight", "contrast", "energy")
"""Rankings whose scores follow from weighted sums; any other needs a fit of each resample."""


def bootstrap_weights(images: int, resamples: int, seed: int) -> Float[Tensor, "resample image"]:
    """How often each resample draws each image, with replacement (multinomial).

    References
    ----------
    Efron (1979), Bootstrap methods: another look at the jackknife, Ann. Statist. 7.
    """
    rng = np.random.default_rng([seed, 5])
    drawn = rng.multinomial(images, np.full(images, 1.0 / images), size=resamples)
    return torch.from_numpy(drawn).float()


@dataclass(kw_only=True)
class WeightedSums:
    """Sums over images, each image counted as often as a resample drew it.

    Attributes
    ----------
    counts : Float[Tensor, "resample cluster"]
    pair_counts : Float[Tensor, "resample cluster cluster"] or None
        For cluster destinations.
    sums, squares : Float[Tensor, "resample cluster head destination"]
        Of the logits, and of their squared distance from the position mean of all images.
    """

    counts: Tensor
    pair_counts: Tensor | None
    sums: Tensor
    squares: Tensor

    def scores(self, rank: str, resample: int) -> Float[Tensor, "cluster head destination"]:
        """Scores of the edges of one resample by a ranking of `WEIGHTED`."""
        if rank == "energy":
            return self.squares[resample]
        sums, counts = self.sums[resample], self.counts[resample]
        entries = None if self.pair_counts is None else self.pair_counts[resample]
        occupied = counts[:, None, None] if entries is None else entries[:, None, :]
        prototypes = sums / occupied.clamp(min=1.0)
        if rank == "weight":
            return prototypes.abs()
        columns = counts.sum() if entries is None else entries.sum(0)
        return contrast(prototypes, counts, sums.sum(0) / columns.clamp(min=1.0), entries).abs()

    def support(self, resample: int) -> Bool[Tensor, "cluster head destination"]:
        """Edges that the resample has rows (or entries) of."""
        if self.pair_counts is None:
            occupied = self.counts[resample][:, None, None]
        else:
            occupied = self.pair_counts[resample][:, None, :]
        return (occupied > 0).expand(self.sums.shape[1:])


def weighted_sums(
    chunks: Iterator[tuple[Tensor, Tensor]],
    weights: Float[Tensor, "resample image"],
    position_mean: Float[Tensor, "head token token"],
    clusters: int,
    destination: str,
) -> WeightedSums:
    """Sum every image's logits by cluster under all resamples at once.

    Parameters
    ----------
    chunks : iterator
        Over ``(labels [image, token], logits [image, head, token, token])``, in the order of
        the columns of `weights`.
    position_mean : Float[Tensor, "head token token"]
        Of all images; a resample's own would need a pass for each.
    """
    pairs = destination == "cluster"
    heads, tokens = position_mean.shape[:2]
    shape = (len(weights), clusters, heads, clusters if pairs else tokens)
    sums, squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    per_image = []
    done = 0
    for labels, logits in chunks:
        share = weights[:, done : done + len(labels)]
        done += len(labels)
        maps = one_hot(labels, clusters)
        per_image.append(maps.sum(1))
        for head in range(heads):
            values = logits[:, head]
            for total, table in ((sums, values), (squares, (values - position_mean[head]) ** 2)):
                found = maps.transpose(1, 2) @ table
                found = found @ maps if pairs else found
                total[:, :, head] += (share @ found.flatten(1)).view(-1, *found.shape[1:])
    rows = torch.cat(per_image).double()
    weights = weights.double()
    return WeightedSums(
        counts=weights @ rows,
        pair_counts=torch.einsum("rb,bk,bl->rkl", weights, rows, rows) if pairs else None,
        sums=sums,
        squares=squares,
    )


def top_edges(
    scores: Float[Tensor, "cluster head destination"],
    candidates: Bool[Tensor, "cluster head destination"],
    top_k: int,
) -> Int[Tensor, "edge"]:
    """Flat indices of the best candidates, ties in index order."""
    order = torch.sort(scores.double().flatten(), descending=True, stable=True).indices
    return order[candidates.flatten()[order]][:top_k]


def jaccard(one: Int[Tensor, "_"], other: Int[Tensor, "_"]) -> float:
    """Size of the intersection over that of the union; 1 for two empty sets."""
    a, b = set(one.tolist()), set(other.tolist())
    return len(a & b) / len(a | b) if a | b else 1.0


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How resampled circuits agree.

    Attributes
    ----------
    jaccard, jaccard_sd : float
        Of each resample's circuit with that of all images: mean and standard deviation.
    jaccard_pairwise : float
        Mean over pairs of resamples.
    jaccard_chance : float
        Of two random circuits of this size, about.
    survival : Float[Tensor, "edge"]
        Share of resamples whose circuit holds each edge of the reference.
    """

    jaccard: float
    jaccard_sd: float
    jaccard_pairwise: float
    jaccard_chance: float
    survival: Tensor


def circuit_agreement(
    reference: Int[Tensor, "edge"], circuits: list[Int[Tensor, "_"]], candidates: int
) -> Agreement:
    """Compare circuits of resamples with a reference and with one another.

    Parameters
    ----------
    candidates : int
        Edges that could have been chosen.
    """
    close = np.array([jaccard(reference, each) for each in circuits])
    between = [
        jaccard(one, other) for at, one in enumerate(circuits) for other in circuits[at + 1 :]
    ]
    held = torch.stack([torch.isin(reference, each) for each in circuits])
    size = len(reference)
    return Agreement(
        jaccard=float(close.mean()),
        jaccard_sd=float(close.std(ddof=1)) if len(close) > 1 else 0.0,
        jaccard_pairwise=float(np.mean(between)) if between else 1.0,
        jaccard_chance=size / max(2 * candidates - size, 1) if size else 1.0,
        survival=held.double().mean(0),
    )
