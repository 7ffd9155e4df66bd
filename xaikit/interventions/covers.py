"""Which logit entries a set of edges covers, and orders of edges on the axis of covered entries.

Edges may be those of several layers: a table ``[cluster, head, destination]`` a layer, in the
order of `Live.sites`. An edge is named ``(site, cluster, head, destination)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.statistics.permutations import one_hot
from xaikit.statistics.totals import as_float64

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped
    from torch import Tensor

SiteEdge = tuple[int, int, int, int]
"""``(site, cluster, head, destination)``: an edge of one of several edited layers."""
Shape = tuple[int, int, int]


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
    per_image = as_float64(one_hot(labels, clusters).sum(1))
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
class EdgeSet:
    """Edges of one or several layers, one of them perhaps in part.

    Attributes
    ----------
    tables : tuple of Bool[Tensor, "cluster head destination"]
        One a site; True for the edges that are in the set as a whole.
    boundary : SiteEdge, optional
        An edge of which the set holds the rows whose `jitter` is below `part`.
    part : float
        In [0, 1).
    """

    tables: tuple[Bool[Tensor, "cluster head destination"], ...]
    boundary: SiteEdge | None = None
    part: float = 0.0

    def touches(self, site: int, *, keep: bool = False) -> bool:
        """Whether an edit of the set, or with `keep` of all else, edits entries of a site."""
        if self.boundary is not None and self.boundary[0] == site:
            return True
        table = self.tables[site]
        return not bool(table.all()) if keep else bool(table.any())

    def mask(
        self,
        site: int,
        labels: Int[Tensor, "image token"],
        jitter: Float[Tensor, "image token"],
        destination: str,
    ) -> Bool[Tensor, "image head token token"]:
        """The entries of one site that the set covers."""
        found = spread(self.tables[site].to(labels.device), labels, destination)
        if self.boundary is not None and self.boundary[0] == site:
            _, cluster, head, goal = self.boundary
            rows = ((labels == cluster) & (jitter < self.part)).unsqueeze(2)
            if destination == "cluster":
                found[:, head] |= rows & (labels == goal).unsqueeze(1)
            else:
                found[:, head, :, goal] |= rows.squeeze(2)
        return found


@dataclass(frozen=True, kw_only=True)
class Order:
    """Edges of all layers in one order, on the axis of the logit entries that they cover.

    The set of a share holds the first edges and a part of the next one: the rows of it whose
    jitter, a fixed number in [0, 1) spread evenly over the rows of each cluster, is below the
    part. The share of entries is so exact for every order, and larger sets hold the smaller ones.

    Attributes
    ----------
    key : str
        The ranking, or ``random``.
    shapes : tuple of (clusters, heads, destinations)
        One a site.
    ranked : Int[Tensor, "edge"]
        Flat places of the edges in the tables of all sites, best first.
    covers : Float[Tensor, "edge"]
        Entries of each edge, in order, float64.
    side : str
        ``for`` or ``against`` where a signed ranking was read from one end; else empty.
    """

    key: str
    shapes: tuple[Shape, ...]
    ranked: Int[Tensor, "edge"]
    covers: Float[Tensor, "edge"]
    side: str = ""

    def threshold(self, share: float) -> float:
        """How many of the first edges, a part included, cover a share of all entries."""
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

    def set_of(self, share: float) -> EdgeSet:
        """The first edges that cover a share of all entries."""
        threshold = self.threshold(share)
        whole, part = int(threshold), threshold % 1
        inside = torch.zeros(self.ranked.numel(), dtype=torch.bool)
        inside[self.ranked[:whole]] = True
        boundary = self.keys(whole, whole + 1)[0] if part > 0 else None
        return EdgeSet(tables=split_tables(inside, self.shapes), boundary=boundary, part=part)

    def keys(self, start: int, stop: int) -> list[SiteEdge]:
        """The edges at some places of the order."""
        return [edge_key(int(flat), self.shapes) for flat in self.ranked[start:stop]]


def split_tables(flat: Shaped[Tensor, "edge"], shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    """Cut one value for each edge of all sites into a table a site."""
    sizes = [clusters * heads * width for clusters, heads, width in shapes]
    return tuple(part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True))


def join_tables(tables: Sequence[Tensor]) -> Shaped[Tensor, "edge"]:
    """The values of all sites' tables one after the other."""
    return torch.cat([table.reshape(-1) for table in tables])


def edge_key(flat: int, shapes: Sequence[Shape]) -> SiteEdge:
    """The edge at a flat place in the tables of all sites."""
    for site, (clusters, heads, width) in enumerate(shapes):
        size = clusters * heads * width
        if flat < size:
            pair, goal = divmod(flat, width)
            return (site, *divmod(pair, heads), goal)
        flat -= size
    raise IndexError(flat)


def flat_place(key: SiteEdge, shapes: Sequence[Shape]) -> int:
    """Where an edge is in the tables of all sites, laid end to end."""
    site, cluster, head, goal = key
    before = sum(clusters * heads * width for clusters, heads, width in shapes[:site])
    _, heads, width = shapes[site]
    return before + (cluster * heads + head) * width + goal


def order_edges(
    key: str,
    scores: Sequence[Float[Tensor, "cluster head destination"]],
    counts: Sequence[Shaped[Tensor, "cluster destination"]],
    support: Sequence[Shaped[Tensor, "cluster destination"]] | None = None,
    side: str = "",
) -> Order:
    """Put the edges of all sites in order of their scores, best first, ties in index order.

    Parameters
    ----------
    scores : sequence of Tensor
        One table a site.
    counts : sequence of Float[Tensor, "cluster destination"]
        Entries a head that each edge covers on the images of the axis (see `entry_counts`).
    support : sequence of Float[Tensor, "cluster destination"], optional
        Entries on the images of the scores; edges without any come last.
    side : str
        ``against`` puts the smallest scores first.
    """
    shapes = tuple((t.shape[0], t.shape[1], t.shape[2]) for t in scores)
    ranked = as_float64(join_tables(scores)).cpu()
    if side == "against":
        ranked = -ranked
    if support is not None:
        ranked = torch.where(_per_head(support, shapes) > 0, ranked, -torch.inf)
    best = torch.sort(ranked, descending=True, stable=True).indices
    covers = _per_head(counts, shapes)[best]
    return Order(key=key, shapes=shapes, ranked=best, covers=covers, side=side)


def random_order(
    counts: Sequence[Shaped[Tensor, "cluster destination"]],
    shapes: Sequence[Shape],
    seed: Sequence[int],
) -> Order:
    """Put the edges of all sites in one random order."""
    total = sum(clusters * heads * width for clusters, heads, width in shapes)
    drawn = torch.from_numpy(np.random.default_rng(list(seed)).permutation(total))
    covers = _per_head(counts, shapes)[drawn]
    return Order(key="random", shapes=tuple(shapes), ranked=drawn, covers=covers)


def _per_head(counts: Sequence[Tensor], shapes: Sequence[Shape]) -> Tensor:
    """Counts of every edge, the same in each head, laid end to end, float64."""
    tables = [count[:, None, :].expand(shape) for count, shape in zip(counts, shapes, strict=True)]
    return as_float64(join_tables(tables)).cpu()


def edge_set(edges: Sequence[SiteEdge], shapes: Sequence[Shape]) -> EdgeSet:
    """The set of some edges ``(site, cluster, head, destination)``."""
    tables = tuple(torch.zeros(shape, dtype=torch.bool) for shape in shapes)
    for site, *edge in edges:
        tables[site][tuple(edge)] = True
    return EdgeSet(tables=tables)


def cover_share(edges: EdgeSet, counts: Sequence[Float[Tensor, "cluster destination"]]) -> float:
    """Share of all logit entries that the whole edges of a set cover."""
    covered = total = 0.0
    for table, count in zip(edges.tables, counts, strict=True):
        covered += float((as_float64(table).sum(1) * count).sum())
        total += table.shape[1] * float(count.sum())
    return covered / total


def shared_covers(
    one: Order,
    other: Order,
    counts: Sequence[Float[Tensor, "cluster destination"]],
    shares: Sequence[float],
) -> list[dict[str, float]]:
    """By `share`: the part of the entries of one order's set that another's holds too (`shared`).

    Left out where the set has no entry, as first edges of other images may have none on these.
    """
    found = []
    for share in shares:
        ours, theirs = one.set_of(share), other.set_of(share)
        both = EdgeSet(tables=tuple(a & b for a, b in zip(ours.tables, theirs.tables, strict=True)))
        if cover := cover_share(ours, counts):
            found.append({"share": share, "shared": cover_share(both, counts) / cover})
    return found
