"""The two small tensor artefacts: features (of ``cluster``) and fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from xaikit.artifacts.edges import EdgeSpace
from xaikit.artifacts.records import Provenance
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.tensor_artifact import TensorArtifact
from xaikit.artifacts.tensor_schema import CODES, FLOATS, WHOLE, TensorSpec
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Bool


@dataclass(kw_only=True)
class Features(TensorArtifact):
    """Clusters of FFN gates.

    Attributes
    ----------
    trace_file : str
    num_clusters : int
    labels : Int[Tensor, "image token"]
    centroids : Float[Tensor, "cluster ffn"]
    cluster_sizes : Int[Tensor, "cluster"]
    cluster_activation_rates : Float[Tensor, "cluster"]
        Mean of each centroid: the share of gates that are open.
    inertia : float
        Mean squared Euclidean distance of the training sample to its centroids.
    method : str
        ``kmeans`` (nearest centroid) or ``guided`` (nearest leaf mean).
    prefix : str
        ``own`` (prefix tokens are labelled by position) or ``mixed``.
    kinds : list of str
        What the last clusters are, where prefix tokens have clusters of their own.
    projection, offset, leaf_means : Float[Tensor, "ffn 4"], Float[Tensor, "4"], \
Float[Tensor, "leaf 4"] or None
        Guided clusters: ``z = gates @ projection − offset``, then the nearest leaf mean.
    discovery, heldout : list of int
        Image indices: clusters are learnt on the first; the second may be empty.
    lost : list of int
        Candidates that could not be used and would have been held out; the others that could
        not would have been discovery images.
    recorded : dict
        The record of the run's images, see `info`.
    """

    FILES: ClassVar[tuple[str, ...]] = ("trace_file",)

    STAGE: ClassVar[str] = "cluster"
    TENSORS: ClassVar[dict[str, TensorSpec]] = {
        "labels": TensorSpec("B N", WHOLE, 0),
        "centroids": TensorSpec("K F", FLOATS, 0, 1),
        "cluster_sizes": TensorSpec("K", WHOLE, 0),
        "cluster_activation_rates": TensorSpec("K", FLOATS, 0, 1),
        "projection": TensorSpec("F Z", optional=True),
        "offset": TensorSpec("Z", optional=True),
        "leaf_means": TensorSpec("L Z", optional=True),
    }

    trace_file: str = ""
    num_clusters: int
    labels: Tensor
    centroids: Tensor
    cluster_sizes: Tensor
    cluster_activation_rates: Tensor
    inertia: float = 0.0
    distinct_points: int = 0
    method: str = "kmeans"
    prefix: str = "mixed"
    kinds: list[str] = field(default_factory=list)
    projection: Tensor | None = None
    offset: Tensor | None = None
    leaf_means: Tensor | None = None
    discovery: list[int] = field(default_factory=list)
    heldout: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    recorded: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def _sizes(cls, fields: dict[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
        return {"K": fields["num_clusters"]}, ()

    def _require_counts(self) -> None:
        images, labels = len(self.labels), self.labels.reshape(-1)
        if labels.numel() and int(labels.max()) >= self.num_clusters:
            self._refuse(f"labels go beyond its {self.num_clusters} clusters")
        if not torch.equal(torch.bincount(labels, minlength=self.num_clusters), self.cluster_sizes):
            self._refuse("cluster_sizes do not count its labels")
        both = [*self.discovery, *self.heldout]
        if len(set(both)) != len(both) or any(not 0 <= each < images for each in both):
            self._refuse(f"discovery and heldout are not parts of its {images:,} images")
        guided = (self.projection, self.offset, self.leaf_means)
        if len({each is None for each in guided}) > 1:
            self._refuse("it has some of projection, offset and leaf_means, not all")
        if self.recorded:
            own = {**self.provenance.fields("trace"), **self.recorded}
            require_schema(self.path, own, "trace", TraceInfo, whole=False)
            self.info.require_counts(self.path)
            recorded = len(self.info.images)
            if recorded != images:
                self._refuse(f"it records {recorded:,} images, and labels of {images:,}")

    @property
    def testable(self) -> bool:
        """Whether images are left that the clusters' definition has not seen the attention of."""
        return self.method != "guided" or bool(self.heldout)

    @property
    def info(self) -> TraceInfo:
        """Images, sizes and preprocessing behind the labels, whether a trace was kept or not.

        Raises
        ------
        UsageError
            Where the file has no such record.
        """
        p, own = self.provenance, dict(self.recorded)
        if not own:
            raise UsageError(
                f"{self.path or 'the features'}: no record of the images; cluster again"
            )
        options = own.pop("options", {})
        return TraceInfo(
            provenance=Provenance(
                origin=p.origin, layer=p.layer, next_layer=p.next_layer, options=options
            ),
            **own,
        )

    @property
    def test_images(self) -> list[int]:
        """Indices of the images that tests run on: the held-out ones, or all."""
        return self.heldout or self.discovery


@dataclass(kw_only=True)
class Fit(TensorArtifact):
    """Prototype logits of each cluster, their fit and their permutation null.

    Prototypes, contrast and energy are of the discovery images; ``edge_*`` and ``null_*`` are of
    the held-out images where there are any, of the same images otherwise. The last axis is the
    destination: tokens (`N`), or clusters (`K`) where `destination` is ``"cluster"``.

    Attributes
    ----------
    prototypes, contrast, energy : Float[Tensor, "cluster head destination"]
        Mean logit; its part that softmax can see; squared residuals from the position mean.
    counts : Int[Tensor, "cluster"]
        Rows of each cluster among the discovery images.
    pair_counts : Int[Tensor, "cluster cluster"] or None
        Entries behind each prototype, for cluster destinations.
    edge_zscores, edge_pvalues, edge_qvalues : Float[Tensor, "cluster head destination"]
        Permutation z-scores, two-sided p-values, Benjamini-Hochberg q-values over all edges; NaN
        where no image is fit for a test (see `testable`).
    edge_null_methods : UInt8[Tensor, "cluster head destination"]
        How each of `edge_pvalues` was found: index into `null_methods`.
    discovery_zscores, discovery_pvalues : Float[Tensor, "cluster head destination"]
        z-scores and p-values on the discovery images: what may be looked at where edges are chosen.
    null_ablation, null_injection : Float[Tensor, "permutation cluster"]
        Effects of the prototypes re-estimated under each sampled permutation.
    test_ablation, test_injection : Float[Tensor, "cluster"]
        The same effects, unpermuted, on the images the null was drawn on.
    position_mean : Float[Tensor, "head token token"]
        ``M_pos``, what ``mean`` ablation puts in place.
    num_null_images : int
        Test images that the sampled permutations are of, at most about 128.
    null_block : int
        Images within which label maps are permuted; 0 is all.
    kinds : list of str
        What the last clusters are, as in `Features`.
    null_methods : list of str
        Names of the ways p-values were found, in the order of their codes; see
        `xaikit.statistics.tails`.
    """

    FILES: ClassVar[tuple[str, ...]] = ("trace_file", "features_file")

    STAGE: ClassVar[str] = "fit"
    TENSORS: ClassVar[dict[str, TensorSpec]] = {
        "prototypes": TensorSpec("K H J"),
        "counts": TensorSpec("K", WHOLE, 0),
        "pair_counts": TensorSpec("K K", WHOLE, 0, optional=True),
        "contrast": TensorSpec("K H J"),
        "energy": TensorSpec("K H J"),
        "edge_zscores": TensorSpec("K H J", nan="tests"),
        "edge_pvalues": TensorSpec("K H J", FLOATS, 0, 1, nan="tests"),
        "edge_qvalues": TensorSpec("K H J", FLOATS, 0, 1, nan="tests"),
        "edge_null_methods": TensorSpec("K H J", CODES),
        "discovery_zscores": TensorSpec("K H J"),
        "discovery_pvalues": TensorSpec("K H J", FLOATS, 0, 1),
        "null_ablation": TensorSpec("draws K"),
        "null_injection": TensorSpec("draws K"),
        "test_ablation": TensorSpec("K"),
        "test_injection": TensorSpec("K"),
        "position_mean": TensorSpec("H N N"),
        "token_norms": TensorSpec("N", FLOATS, 0, empty=True),
    }

    trace_file: str = ""
    features_file: str = ""
    destination: str = "token"
    prototypes: Tensor
    counts: Tensor
    pair_counts: Tensor | None = None
    contrast: Tensor
    energy: Tensor
    edge_zscores: Tensor
    edge_pvalues: Tensor
    edge_qvalues: Tensor
    edge_null_methods: Tensor
    discovery_zscores: Tensor
    discovery_pvalues: Tensor
    null_ablation: Tensor
    null_injection: Tensor
    test_ablation: Tensor
    test_injection: Tensor
    position_mean: Tensor
    token_norms: Tensor
    mse: float
    r2: float
    r2_mean: float
    r2_position: float
    r2_position_cluster: float
    heldout_r2: dict[str, float] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    prefix_kinds: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    grid: list[int] = field(default_factory=list)
    num_images: int = 0
    num_test_images: int = 0
    num_null_images: int = 0
    null: str = "moments"
    null_block: int = 0
    null_methods: list[str] = field(default_factory=list)
    heldout: bool = False
    method: str = "kmeans"

    @classmethod
    def _sizes(cls, fields: dict[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
        guided = fields.get("method") == "guided" and not fields.get("heldout")
        return {}, ("tests",) if guided else ()

    def _require_counts(self) -> None:
        clusters, _, width = self.prototypes.shape
        to_clusters = self.destination == "cluster"
        if width != (clusters if to_clusters else self.position_mean.shape[1]):
            self._refuse(f"its {width} destinations are not all {self.destination}s")
        if to_clusters == (self.pair_counts is None):
            self._refuse("pair_counts go with destinations that are clusters")
        if self.null_methods and int(self.edge_null_methods.max()) >= len(self.null_methods):
            self._refuse("edge_null_methods go beyond its null_methods")

    @property
    def prefix_tokens(self) -> int:
        """How many tokens come before the patches."""
        return len(self.prefix_kinds)

    @property
    def space(self) -> EdgeSpace:
        """The edges that were fitted."""
        clusters, heads, width = self.prototypes.shape
        return EdgeSpace(clusters=clusters, heads=heads, width=width, destination=self.destination)

    @property
    def testable(self) -> bool:
        """Whether tests are given: guided clusters have seen their learning images' attention."""
        return self.method != "guided" or self.heldout

    @property
    def untestable(self) -> Bool[Tensor, "cluster head destination"]:
        """Edges whose prototype no permutation of images changes: z is 0 and p is 1."""
        return (self.edge_zscores == 0.0) & (self.edge_pvalues == 1.0)

    @property
    def support(self) -> Tensor:
        """Rows (token destinations) or entries (cluster destinations) behind each edge [K, dst]."""
        if self.pair_counts is not None:
            return self.pair_counts
        return self.counts[:, None].expand(-1, self.prototypes.shape[2])
