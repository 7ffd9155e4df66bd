"""Sufficient statistics of logits given cluster labels, and the fits that follow from them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch

from xaikit.statistics.permutations import entry_sums

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class LogitSums:
    """Sums of logits by cluster, by position and in total, float64: zero until they are filled in.

    Attributes
    ----------
    images : int
    counts : Float[Tensor, "cluster"]
        Rows of each cluster.
    position_counts : Float[Tensor, "cluster token"]
        How often each cluster sits at each source token.
    sums : Float[Tensor, "cluster head token"]
        Sum of ``A[b,h,i,j]`` over the rows of each cluster.
    position : Float[Tensor, "head token token"]
        Sum over images.
    square : Float[Tensor, ""]
        Sum of all squared logits.
    pair_counts : Float[Tensor, "cluster cluster"]
    pair_sums : Float[Tensor, "cluster head cluster"]
        The same by source and destination cluster.
    """

    def __init__(self, clusters: int, heads: int, tokens: int) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        self.clusters = clusters
        self.images = 0
        self.counts = zeros(clusters)
        self.position_counts = zeros(clusters, tokens)
        self.sums = zeros(clusters, heads, tokens)
        self.position = zeros(heads, tokens, tokens)
        self.square = zeros()
        self.pair_counts = zeros(clusters, clusters)
        self.pair_sums = zeros(clusters, heads, clusters)

    @property
    def rows(self) -> Float[Tensor, ""]:
        """Number of rows (source tokens)."""
        return self.counts.sum()

    @property
    def position_mean(self) -> Float[Tensor, "head token token"]:
        """``M_pos``: mean over images."""
        return self.position / max(self.images, 1)

    @property
    def prototypes(self) -> Float[Tensor, "cluster head token"]:
        """``P``: mean over the rows of each cluster; 0 for an empty one."""
        return self.sums / self.counts.clamp(min=1.0)[:, None, None]

    @property
    def pair_prototypes(self) -> Float[Tensor, "cluster head cluster"]:
        """``Q``: mean over the entries of each pair of clusters; 0 for an empty one."""
        return self.pair_sums / self.pair_counts.clamp(min=1.0)[:, None, :]

    @property
    def row_mean(self) -> Float[Tensor, "head token"]:
        """``M``: mean over all rows."""
        return self.position.sum(1) / self.rows.clamp(min=1.0)

    def copy(self) -> LogitSums:
        """The same sums, to be changed one by one."""
        return copy(self)

    def position_share(
        self, position_mean: Float[Tensor, "head token token"]
    ) -> Float[Tensor, "cluster head token"]:
        """Sum of a position-only prediction over the rows of each cluster."""
        return (self.position_counts @ position_mean.double()).transpose(0, 1)


def pair_position_share(
    labels: Int[Tensor, "image token"],
    position_mean: Float[Tensor, "head token token"],
    clusters: int,
    chunk: int = 64,
) -> Float[Tensor, "cluster head cluster"]:
    """Sum of a position-only prediction over the entries of each pair of clusters."""
    heads = position_mean.shape[0]
    total = torch.zeros(clusters, heads, clusters, dtype=torch.float64, device=labels.device)
    centre = position_mean.double()
    for part in labels.split(chunk):
        for head in range(heads):
            table = centre[head].expand(len(part), -1, -1)
            total[:, head] += entry_sums(part, table, clusters, pairs=True)
    return total


def contrast(
    prototypes: Float[Tensor, "cluster head destination"],
    counts: Float[Tensor, "cluster"],
    row_mean: Float[Tensor, "head destination"],
    pair_counts: Float[Tensor, "cluster destination"] | None = None,
) -> Float[Tensor, "cluster head destination"]:
    """What softmax can see of a prototype: ``P[k] - M``, centred over destinations.

    Parameters
    ----------
    pair_counts : Float[Tensor, "cluster destination"], optional
        Entries behind each prototype, where destinations are clusters: the centre is then the
        mean over destination tokens, and a pair that never meets has contrast 0.
    """
    difference = prototypes.double() - row_mean.double()
    if pair_counts is None:
        centre = difference.mean(-1, keepdim=True)
        occupied = counts[:, None, None] > 0
    else:
        entries = pair_counts.double()[:, None, :]
        total = entries.sum(-1, keepdim=True).clamp(min=1.0)
        centre = (difference * entries).sum(-1, keepdim=True) / total
        occupied = entries > 0
    return torch.where(occupied, difference - centre, 0.0)


def r2_score(squared_error: float, square: float, total: float, entries: float) -> float:
    """``1 - mse/var``, population variance; where ``var = 0``: 1 if mse is 0, else 0."""
    variance = square / entries - (total / entries) ** 2
    mse = max(squared_error, 0.0) / entries
    # A constant array has a variance of rounding errors only.
    if variance <= 1e-12 * square / entries:
        return 1.0 if mse <= 1e-12 * max(square / entries, 1e-300) else 0.0
    return 1.0 - mse / variance


class Predictions:
    """R-squared of the contract's four predictions, learnt on `train`, scored on `test`.

    Parameters
    ----------
    train, test : LogitSums
        The same object for a fit in sample.
    destination : str
        ``token`` or ``cluster``.
    train_pairs, test_pairs : Float[Tensor, "cluster head cluster"], optional
        `pair_position_share` of ``train.position_mean`` over the images of each, for cluster
        destinations.
    """

    def __init__(
        self,
        train: LogitSums,
        test: LogitSums,
        destination: str = "token",
        train_pairs: Tensor | None = None,
        test_pairs: Tensor | None = None,
    ) -> None:
        self._train, self._test = train, test
        self._pairs = destination == "cluster"
        self._train_pairs, self._test_pairs = train_pairs, test_pairs
        heads, tokens = test.position.shape[:2]
        self._entries = float(test.images * heads * tokens * tokens)
        self._total = float(test.position.sum())

    def _score(self, squared_error: Tensor) -> float:
        square = float(self._test.square)
        return r2_score(float(squared_error), square, self._total, self._entries)

    def cluster_error(self) -> Float[Tensor, ""]:
        """Squared error of the prototypes."""
        train, test = self._train, self._test
        if self._pairs:
            return _squared_error(
                test.square, train.pair_prototypes, test.pair_sums, test.pair_counts[:, None, :]
            )
        return _squared_error(test.square, train.prototypes, test.sums, test.counts[:, None, None])

    def mse(self) -> float:
        """Mean squared error of the prototypes."""
        return max(float(self.cluster_error()), 0.0) / self._entries

    def scores(self) -> dict[str, float]:
        """``r2``, ``r2_mean``, ``r2_position`` and ``r2_position_cluster``."""
        train, test = self._train, self._test
        mean = _squared_error(test.square, train.row_mean, test.position.sum(1), test.rows)
        centre = train.position_mean
        position = _squared_error(test.square, centre, test.position, float(test.images))
        if self._pairs:
            assert self._train_pairs is not None
            assert self._test_pairs is not None
            occupied = train.pair_counts.clamp(min=1.0)[:, None, :]
            step = (train.pair_sums - self._train_pairs) / occupied
            gain = _gain(step, test.pair_sums - self._test_pairs, test.pair_counts[:, None, :])
        else:
            own = train.sums - train.position_share(centre)
            step = own / train.counts.clamp(min=1.0)[:, None, None]
            total = own if test is train else test.sums - test.position_share(centre)
            gain = _gain(step, total, test.counts[:, None, None])
        return {
            "r2": self._score(self.cluster_error()),
            "r2_mean": self._score(mean),
            "r2_position": self._score(position),
            "r2_position_cluster": self._score(position - gain),
        }


def _squared_error(
    square: Tensor, prediction: Tensor, sums: Tensor, counts: Tensor | float
) -> Tensor:
    return square - _gain(prediction, sums, counts)


def _gain(prediction: Tensor, sums: Tensor, counts: Tensor | float) -> Tensor:
    """How much ``sum (A - prediction)^2`` is below ``sum A^2``."""
    return (prediction * (2.0 * sums - counts * prediction)).sum()
