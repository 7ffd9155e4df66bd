"""What is known of one part of the images once all of its blocks have been added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.edge_null import EdgeNull, untested_effects
from xaikit.statistics.edge_sums import SHAPE, EdgeSums
from xaikit.statistics.moments import zscores
from xaikit.statistics.permutations import one_hot
from xaikit.statistics.sums import LogitSums, Predictions
from xaikit.statistics.tails import NullShape, tail_pvalues

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from xaikit.statistics.block_null import Draws


@dataclass(frozen=True, kw_only=True)
class Part:
    """Statistics of one part of the images.

    Attributes
    ----------
    sums : LogitSums
        Of the destination that was asked for.
    share : Float[Tensor, "cluster head cluster"] or None
        Sum of ``M0`` over the entries of each pair of clusters, for cluster destinations.
    shuffled : list of LogitSums
        The same sums under label maps that are shuffled over images.
    null : EdgeNull
    """

    sums: LogitSums
    share: Tensor | None
    shuffled: list[LogitSums]
    null: EdgeNull

    def scores(self, test: Part, shuffle: int | None = None) -> Predictions:
        """Predictions learnt on this part and scored on another, perhaps with shuffled labels."""
        one, other = self.sums, test.sums
        if shuffle is not None:
            one, other = self.shuffled[shuffle], test.shuffled[shuffle]
        if self.share is None:
            return Predictions(one, other)
        return Predictions(one, other, "cluster", self.share, test.share)


def finished(found: EdgeSums, labels: Int[Tensor, "image token"], draws: Draws | None) -> Part:
    """Put a part together.

    Parameters
    ----------
    labels : Int[Tensor, "image token"]
        Of the part's images.
    draws : Draws, optional
        Where permutations were sampled on this part.
    """
    sums = whole_sums(found, labels)
    total, pairs = found.totals, found.shape.pairs
    share = total.value("share").transpose(0, 1) if pairs else None
    shuffled = []
    if found.shuffles:
        for each in total.value("shuffled").permute(1, 2, 0, 3):
            other = sums.copy()
            _set_edges(other, each, pairs)
            shuffled.append(other)
    return Part(sums=sums, share=share, shuffled=shuffled, null=_null(found, sums, labels, draws))


def whole_sums(found: EdgeSums, labels: Int[Tensor, "image token"]) -> LogitSums:
    """Sums of the logits.

    Parameters
    ----------
    labels : Int[Tensor, "image token"]
        Of the part's images.
    """
    shape, total = found.shape, found.totals
    sums = label_counts(labels, shape.clusters, shape.heads)
    sums.images = round(float(total.value("images")))
    sums.position = total.value("position")
    sums.square = total.value("square")
    _set_edges(sums, total.value("sums").transpose(0, 1), shape.pairs)
    return sums


def label_counts(labels: Int[Tensor, "image token"], clusters: int, heads: int) -> LogitSums:
    """Sums of which only what labels say is filled in."""
    tokens = labels.shape[1]
    sums = LogitSums(clusters, heads, tokens)
    for part in labels.split(256):
        maps = one_hot(part, clusters).double()
        per_image = maps.sum(1)
        sums.position_counts += maps.sum(0).T
        sums.pair_counts += per_image.T @ per_image
    sums.counts = sums.position_counts.sum(1)
    return sums


def _set_edges(sums: LogitSums, edges: Tensor, pairs: bool) -> None:
    if pairs:
        sums.pair_sums = edges
    else:
        sums.sums = edges


def _null(
    found: EdgeSums,
    sums: LogitSums,
    labels: Tensor,
    draws: Draws | None,
) -> EdgeNull:
    shape, total = found.shape, found.totals
    counts = sums.pair_counts[:, None, :] if shape.pairs else sums.counts[:, None, None]
    occupied = (counts > 0).expand(-1, shape.heads, shape.width)
    entries = max(sums.images * shape.heads * shape.tokens**2, 1)
    scale = float((sums.square / entries).clamp(min=0.0).sqrt())
    excess, variance = _moments(found, sums, labels)
    own = torch.where(occupied, zscores(excess, variance, counts, scale), 0.0)
    pvalues = methods = None
    if found.tails:
        pvalues, methods = tail_pvalues(own, _null_shape(found, counts, scale))
    effects = draws.effects() if draws is not None else untested_effects(sums, shape.pairs)
    return EdgeNull(
        zscores=own,
        moment_pvalues=pvalues,
        moment_methods=methods,
        energy=total.value("energy").transpose(0, 1) if found.energy else torch.zeros(0),
        occupied=occupied,
        **effects,
    )


def _moments(found: EdgeSums, sums: LogitSums, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Excess and variance over permutations: of all images where they were added up so."""
    total = found.totals
    if found.covariance is None:
        return total.value("excess").transpose(0, 1), total.value("variance").transpose(0, 1)
    excess = sums.sums - sums.position_share(sums.position_mean)
    moved = sums.position - sums.images * found.mean.cpu()
    return excess, found.covariance.variance(labels, moved, found.shape.clusters)


def _null_shape(found: EdgeSums, counts: Tensor, scale: float) -> NullShape:
    """The null of permutations within blocks, whose tails are known."""
    total = found.totals
    variance = total.value("variance").transpose(0, 1)
    scores = zscores(total.value("excess").transpose(0, 1), variance, counts, scale)
    return NullShape(
        scores=scores,
        variance=variance,
        log_arrangements=total.value("arrangements").unsqueeze(1).expand(scores.shape),
        **{name: total.value(name).transpose(0, 1) for name in SHAPE},
    )
