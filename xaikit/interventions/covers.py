"""Which logit entries a set of edges covers, and orders of edges on the axis of covered entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.permutations import one_hot

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped
    from torch import Tensor


def entry_counts(
    labels: Int[Tensor, "image token"], clusters: int, destination: str
) -> Float[Tensor, "cluster destination"]:
    """Logit entries of one head that each edge covers, over all images, float64.

    Parameters
    ----------
    labels : Int[Tensor, "image token"]
    clusters : int
    destination : str
        ``token`` (``[K, N]``) or ``cluster`` (``[K, K]``).
    """
    per_image = one_hot(labels, clusters).sum(1).double()
    if destination == "cluster":
        return per_image.T @ per_image
    return per_image.sum(0)[:, None].repeat(1, labels.shape[1])


def spread(
    table: Shaped[Tensor, "cluster head destination"],
    labels: Int[Tensor, "image token"],
    destination: str,
) -> Shaped[Tensor, "image head token token"]:
    """Look every logit entry's edge up in a table: ``table[c(b,i), h, j]`` or ``[.., c(b,j)]``.

    Parameters
    ----------
    table : Tensor
        One value an edge ``[K, H, N]``, or ``[K, H, K]`` for cluster destinations.
    labels : Int[Tensor, "image token"]
    destination : str

    Returns
    -------
    Tensor
        ``[B, H, N, N]``.
    """
    images, tokens = labels.shape
    heads = table.shape[1]
    rows = table.transpose(0, 1).index_select(1, labels.reshape(-1))
    rows = rows.reshape(heads, images, tokens, -1)
    if destination == "cluster":
        columns = labels[None, :, None, :].expand(heads, images, tokens, tokens)
        rows = rows.gather(3, columns)
    return rows.transpose(0, 1)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Edges in an order, on the axis of the logit entries that they cover.

    The first `m` edges and a part `f` of the next one are written ``m + f``: the entries whose
    ``position + u`` is below it, `u` in [0, 1) being a fixed number of the entry's row, spread
    evenly over the rows of its cluster. The share of entries is so exact for every order, and
    larger shares hold the smaller ones.

    Attributes
    ----------
    key : str
        The ranking, or ``random``.
    destination : str
    positions : Float[Tensor, "cluster head destination"]
        Place of each edge in the order, from 0, float32.
    covers : Float[Tensor, "edge"]
        Entries of each edge, in order, float64.
    """

    key: str
    destination: str
    positions: Float[Tensor, "cluster head destination"]
    covers: Float[Tensor, "edge"]

    def threshold(self, share: float) -> float:
        """``m + f`` of the first edges that cover a share of all entries."""
        total = torch.cumsum(self.covers, 0)
        wanted = share * float(total[-1])
        place = int(torch.searchsorted(total, wanted * (1 - 1e-12)))
        if place >= len(total):
            return float(len(total))
        before = float(total[place - 1]) if place else 0.0
        cover = float(self.covers[place])
        return place + min(1.0, (wanted - before) / cover) if cover else float(place)

    def edges(self, share: float) -> int:
        """Edges needed for a share of all entries, the partly covered one included."""
        whole = self.threshold(share)
        return int(whole) + (whole % 1 > 1e-9)


def order_edges(
    key: str,
    scores: Float[Tensor, "cluster head destination"],
    counts: Float[Tensor, "cluster destination"],
    destination: str,
    support: Float[Tensor, "cluster destination"] | None = None,
) -> Order:
    """Put edges in order of their scores, best first, ties in index order.

    Parameters
    ----------
    counts : Float[Tensor, "cluster destination"]
        Entries a head that each edge covers on the images of the axis (see `entry_counts`).
    support : Float[Tensor, "cluster destination"], optional
        Entries on the images of the scores; edges without any come last.
    """
    ranked = scores.double().cpu()
    if support is not None:
        ranked = torch.where(support[:, None, :] > 0, ranked, -torch.inf)
    best = torch.sort(ranked.reshape(-1), descending=True, stable=True).indices
    return _ordered(key, best, counts.cpu(), scores.shape, destination)


def random_order(
    counts: Float[Tensor, "cluster destination"],
    heads: int,
    destination: str,
    seed: Sequence[int],
) -> Order:
    """Put all edges in a random order."""
    clusters, width = counts.shape
    drawn = np.random.default_rng(list(seed)).permutation(clusters * heads * width)
    shape = torch.Size((clusters, heads, width))
    return _ordered("random", torch.from_numpy(drawn), counts.cpu(), shape, destination)


def _ordered(key: str, best: Tensor, counts: Tensor, shape: torch.Size, destination: str) -> Order:
    positions = torch.empty(best.numel(), dtype=torch.float32)
    positions[best] = torch.arange(best.numel(), dtype=torch.float32)
    covers = counts[:, None, :].expand(shape).reshape(-1)[best]
    return Order(
        key=key, destination=destination, positions=positions.reshape(shape), covers=covers
    )


def edge_table(
    edges: Sequence[tuple[int, int, int]], shape: Sequence[int]
) -> Bool[Tensor, "cluster head destination"]:
    """Mark edges ``(cluster, head, destination)`` in a table of all of them."""
    table = torch.zeros(tuple(shape), dtype=torch.bool)
    for edge in edges:
        table[edge] = True
    return table


def cover_share(
    table: Bool[Tensor, "cluster head destination"], counts: Float[Tensor, "cluster destination"]
) -> float:
    """Share of all logit entries that the marked edges cover."""
    heads = table.shape[1]
    return float((table.double().sum(1) * counts).sum() / (heads * counts.sum()))
