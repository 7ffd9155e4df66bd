"""An edge, and the space of all edges of a pair of layers.

Token or cluster destinations are told apart here; everywhere else an edge is three numbers,
``(cluster, head, destination)``, or one: its place in ``[cluster, head, destination]`` flattened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

TOKEN, CLUSTER = "token", "cluster"
DESTINATIONS = (TOKEN, CLUSTER)


class EdgeKey(NamedTuple):
    """An edge's three numbers."""

    cluster: int
    head: int
    destination: int


class HasEnds(Protocol):
    """A record that says where an edge starts and ends."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def head(self) -> int: ...
    @property
    def dst_token(self) -> int | None: ...
    @property
    def dst_cluster(self) -> int | None: ...


class HasName(Protocol):
    """A record that may say its query side in words."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def src_name(self) -> str: ...


def key_of(record: HasEnds) -> EdgeKey:
    """The three numbers of a record."""
    found = record.dst_token if record.dst_token is not None else record.dst_cluster
    assert found is not None, "an edge ends at a token or at a cluster"
    return EdgeKey(record.cluster_id, record.head, found)


def source_name(record: HasName) -> str:
    """The query side of a record in words."""
    return record.src_name or f"cluster {record.cluster_id}"


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One edge of a circuit: the queries of a cluster's tokens, a head, and the keys it reads.

    In the words of the field, `cluster_id` names the *query* side (the tokens that attend) and
    `dst_token` or `dst_cluster` the *key* side (the tokens that are attended to).

    Attributes
    ----------
    cluster_id, head : int
    dst_token : int or None
        Key token; None where destinations are clusters.
    dst_cluster : int or None
        Cluster of the key tokens; None where destinations are tokens.
    weight : float
        Prototype logit ``P[k,h,j]``.
    support : int
        Rows (token destinations) or entries (cluster destinations) behind it.
    score : float
        What the ranking ordered by.
    contrast, zscore, pvalue, qvalue : float
        See ``Fit``; the last three are of the test images, and None where no image is fit for a
        test.
    testable : bool
        Whether a permutation of images can change the prototype at all: that of a cluster which
        sits at the same tokens in every image it cannot.
    src_name : str
        The query side in words: ``cluster 3``, or ``class token`` where it is nothing else.
    dst_kind : str
        ``prefix``, ``sink``, ``patch`` or ``cluster``.
    dst_name : str
        The destination in words, such as ``class token`` or ``patch (3, 4)``.
    survival : float or None
        Share of bootstraps whose circuit holds the edge, where there were any.
    layer, next_layer : int or None
        Of a circuit of several layers.
    effect : float or None
        Of an objective with a sign: the fall that removing the edge causes, to first order, summed
        over the images of the scores. Above 0 the edge pushes for the objective.
    side : str or None
        ``for`` or ``against``, by the sign of `effect`.
    """

    cluster_id: int
    head: int
    dst_token: int | None
    weight: float
    support: int
    dst_cluster: int | None = None
    score: float = 0.0
    contrast: float = 0.0
    zscore: float | None = 0.0
    pvalue: float | None = 1.0
    qvalue: float | None = 1.0
    testable: bool = True
    src_name: str = ""
    dst_kind: str = "patch"
    dst_name: str = ""
    survival: float | None = None
    layer: int | None = None
    next_layer: int | None = None
    effect: float | None = None
    side: str | None = None

    @property
    def destination(self) -> int:
        """Index of the destination token or cluster."""
        return key_of(self).destination

    @property
    def key(self) -> EdgeKey:
        """The edge's three numbers."""
        return key_of(self)


@dataclass(frozen=True, kw_only=True)
class EdgeSpace:
    """All edges from `clusters` clusters through `heads` heads to `width` destinations.

    Attributes
    ----------
    clusters, heads : int
    width : int
        Tokens of an image, or clusters.
    destination : str
        ``token`` or ``cluster``.
    """

    clusters: int
    heads: int
    width: int
    destination: str = TOKEN

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an array with one entry an edge."""
        return self.clusters, self.heads, self.width

    @property
    def to_clusters(self) -> bool:
        """Whether edges end at clusters of tokens."""
        return self.destination == CLUSTER

    def __len__(self) -> int:
        return math.prod(self.shape)

    def flat(self, cluster: Any, head: Any, destination: Any) -> Any:
        """Place of an edge in the flattened array; whole arrays of numbers work alike."""
        return (cluster * self.heads + head) * self.width + destination

    def split(self, flat: Any) -> tuple[Any, Any, Any]:
        """Cluster, head and destination of a place; whole arrays of places work alike."""
        pair = flat // self.width
        return pair // self.heads, pair % self.heads, flat % self.width

    def key(self, flat: int) -> EdgeKey:
        """Cluster, head and destination of one place.

        Raises
        ------
        IndexError
            Where there is no such place.
        """
        if not 0 <= flat < len(self):
            raise IndexError(f"edge {flat} of {len(self)}")
        return EdgeKey(*map(int, self.split(int(flat))))

    def places(self, edges: Iterable[HasEnds]) -> list[int]:
        """Places of records, such as a circuit's paths."""
        return [int(self.flat(*key_of(edge))) for edge in edges]

    def ends(self, destination: int) -> dict[str, int | None]:
        """The fields of a record that say where an edge ends."""
        own, other = (
            ("dst_cluster", "dst_token") if self.to_clusters else ("dst_token", "dst_cluster")
        )
        return {own: int(destination), other: None}

    def fields(self, key: EdgeKey) -> dict[str, int | None]:
        """The fields of a record that say which edge it is."""
        return {"cluster_id": int(key[0]), "head": int(key[1]), **self.ends(key[2])}
