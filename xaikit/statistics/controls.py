"""What clusters that know nothing of the images' content explain: controls of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from xaikit.statistics.parts import Part as FitPart
from xaikit.statistics.permutations import image_permutations, pair_sums
from xaikit.statistics.relabel import RelabelledSums, position_clusters, positioned_sums
from xaikit.statistics.sums import LogitSums, Predictions, pair_position_share

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

DESTINATIONS = ("token", "cluster")

SHUFFLES = 5
"""Draws of shuffled labels behind the controls that every fit carries."""


class LogitSource(Protocol):
    """What is read again: logits of chosen images in chunks."""

    def iter_logits(
        self, images: np.ndarray, *, head: int | None = None, chunk_bytes: int = ...
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield ``(image indices, logits)`` in image order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some images: their labels, their sums, and how to read their logits again.

    Attributes
    ----------
    labels : Int[Tensor, "image token"]
    sums : LogitSums
        What does not depend on labels.
    chunks : callable
        Returns an iterator over logits ``[image, head, token, token]`` in the labels' order.
    """

    labels: Int[Tensor, "image token"]
    sums: LogitSums
    chunks: Callable[[], Iterator[Tensor]]


def image_part(
    trace: LogitSource, labels: Int[Tensor, "image token"], images: Sequence[int]
) -> Part:
    """Sum the logits of some images of a trace, whose labels are `labels`, by position."""
    order = np.sort(np.asarray(images, dtype=int))
    sums: LogitSums | None = None
    for _, logits in trace.iter_logits(order):
        sums = sums or LogitSums(0, *logits.shape[1:3])
        # One image at a time in float64 stays in the cache while it is read twice.
        for image in map(torch.Tensor.double, logits):
            sums.position += image
            sums.square += image.square().sum()
        sums.images += len(logits)
    assert sums is not None, "no image"
    return Part(
        labels=labels[order],
        sums=sums,
        chunks=lambda: (logits for _, logits in trace.iter_logits(order)),
    )


def label_scores(
    train: Part,
    test: Part,
    maps: Sequence[tuple[Tensor, Tensor]],
    clusters: Sequence[int],
    destinations: Sequence[str],
) -> dict[str, list[dict[str, float]]]:
    """R-squared of the contract's predictions for many clusterings, one pass over the images.

    Parameters
    ----------
    train, test : Part
        The same object for scores in sample.
    maps : sequence of (Int[Tensor, "image token"], Int[Tensor, "image token"])
        Labels of the images of `train` and of `test`.
    clusters : sequence of int
        Number of clusters of each.
    destinations : sequence of str
        ``token``, ``cluster`` or both.

    Returns
    -------
    dict of list of dict
        For each destination and clustering, as `Predictions.scores`, and ``added``:
        ``r2_position_cluster - r2_position``.
    """
    pairs = "cluster" in destinations
    learnt = _relabelled(train, [own for own, _ in maps], clusters, pairs)
    tested = learnt
    if test is not train:
        tested = _relabelled(test, [other for _, other in maps], clusters, pairs)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in destinations}
    for own, other, labels, k in zip(learnt, tested, maps, clusters, strict=True):
        for name in destinations:
            shares = []
            if name == "cluster":
                shares = [pair_position_share(each, own.position_mean, k) for each in labels]
            scores = Predictions(own, other, name, *shares).scores()
            added = scores["r2_position_cluster"] - scores["r2_position"]
            found[name].append({**scores, "added": added})
    return found


def _relabelled(
    part: Part, maps: list[Tensor], clusters: Sequence[int], pairs: bool
) -> list[LogitSums]:
    sums = RelabelledSums(part.sums, maps, clusters, pairs=pairs)
    for logits in part.chunks():
        sums.add(logits)
    return sums.finished()


def control_scores(
    train: Part,
    test: Part,
    clusters: int,
    destinations: Sequence[str],
    *,
    prefix: int,
    grid: Sequence[int],
    draws: int = SHUFFLES,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Score labels shuffled over images, and clusters of positions.

    Shuffled labels keep positions, cluster sizes and what is within an image (the null of every
    test); k-means of positions keeps nothing else: over position it adds exactly 0.

    Returns
    -------
    dict of dict
        For each destination, `Fit.controls`: ``shuffled_added``, ``shuffled_added_sd`` and
        ``shuffled_r2`` over ``shuffled_draws`` draws, ``position_added`` and ``position_r2``.
        ``_r2`` is of the prototypes alone, ``_added`` is beyond the position mean.
    """
    orders = [
        torch.from_numpy(image_permutations(len(part.labels), draws, seed))
        for part in (train, test)
    ]
    maps = [(train.labels[own], test.labels[other]) for own, other in zip(*orders, strict=True)]
    places = position_clusters(train.labels.shape[1], prefix, grid, clusters, seed)
    maps.append((places.expand_as(train.labels), places.expand_as(test.labels)))
    scores = label_scores(train, test, maps, [clusters] * len(maps), destinations)
    return {name: _summary(found[:-1], found[-1]) for name, found in scores.items()}


def fit_controls(
    train: FitPart, test: FitPart, prefix: int, grid: Sequence[int], seed: int
) -> dict[str, float]:
    """`Fit.controls` from the shuffled sums of both parts; empty where there are none.

    Labels are shuffled over images within blocks, as permutations are. What clusters of
    positions explain follows from the position sums alone.
    """
    count = min(len(train.shuffled), len(test.shuffled))
    if not count:
        return {}
    shuffled = [_added(train.scores(test, each)) for each in range(count)]
    clusters, tokens = train.sums.position_counts.shape
    places = position_clusters(tokens, prefix, grid, clusters, seed)
    pairs = train.share is not None
    own = positioned_sums(train.sums, places, pairs)
    other = positioned_sums(test.sums, places, pairs)
    shares = []
    if pairs:
        mean = train.sums.position_mean.double()
        share = pair_sums(places.expand(len(mean), -1), mean, clusters).transpose(0, 1)
        shares = [share * part.images for part in (own, other)]
    where = "cluster" if pairs else "token"
    return _summary(shuffled, _added(Predictions(own, other, where, *shares)))


def _added(predictions: Predictions) -> dict[str, float]:
    scores = predictions.scores()
    return {**scores, "added": scores["r2_position_cluster"] - scores["r2_position"]}


def _summary(shuffled: list[dict[str, float]], position: dict[str, float]) -> dict[str, float]:
    added = torch.tensor([each["added"] for each in shuffled], dtype=torch.float64)
    raw = torch.tensor([each["r2"] for each in shuffled], dtype=torch.float64)
    return {
        "shuffled_added": float(added.mean()),
        "shuffled_added_sd": float(added.std()) if len(added) > 1 else 0.0,
        "shuffled_r2": float(raw.mean()),
        "shuffled_draws": float(len(shuffled)),
        "position_added": position["added"],
        "position_r2": position["r2"],
    }
