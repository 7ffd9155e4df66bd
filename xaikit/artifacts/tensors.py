"""The two small tensor artefacts: features (of ``cluster``) and fit."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xaikit.artifacts.edges import EdgeSpace
from xaikit.artifacts.files import fingerprint, read_tensors, write_tensors
from xaikit.artifacts.records import Artifact, Provenance
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor


@dataclass(kw_only=True)
class TensorArtifact(Artifact):
    """A record whose tensors go to safetensors and whose other fields go to its header."""

    STAGE: ClassVar[str]
    TENSORS: ClassVar[tuple[str, ...]]

    def _tensors(self) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in self.TENSORS}
        return {name: value for name, value in found.items() if value is not None}

    def _fields(self) -> dict[str, Any]:
        skip = {*self.TENSORS, *self.FILES, "provenance", "identity", "path"}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}
        return {**self.provenance.fields(self.STAGE), **own}

    def identify(self) -> Self:
        """Set `identity`, a hash of tensors, fields, parents and options."""
        skip = {*self.TENSORS, *self.FILES, "provenance", "identity", "path"}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}
        parts: list[object] = [self.provenance.parents, self.provenance.options, own]
        for name, value in sorted(self._tensors().items()):
            parts += [name, value.detach().cpu().contiguous().numpy().tobytes()]
        self.identity = fingerprint(*parts)
        return self

    def save(self, path: str | Path) -> None:
        """Write to `path`, aside and renamed."""
        target = Path(path)
        own = {**self._fields(), **self._written_files(target), "identity": self.identity}
        write_tensors(target, self._tensors(), own)
        self.path = target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from `path`.

        Raises
        ------
        UsageError
            Where the file is missing, damaged, or of another stage.
        """
        header, tensors = read_tensors(path, cls.STAGE)
        known = {f.name for f in fields(cls)} - {"provenance", "path"}
        try:
            own: dict[str, Any] = {k: value for k, value in header.items() if k in known}
            own.update((key, value) for key, value in tensors.items() if key in known)
            own |= {**cls._read_files(header, Path(path)), "path": Path(path)}
            return cls(provenance=Provenance.from_fields(header, path), **own)
        except TypeError:
            missing = sorted(set(cls.TENSORS) - set(tensors))
            raise UsageError(
                f"{path} is no complete {cls.STAGE} file "
                f"(missing: {', '.join(missing) or 'fields'})"
            ) from None


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
    TENSORS: ClassVar[tuple[str, ...]] = (
        "labels",
        "centroids",
        "cluster_sizes",
        "cluster_activation_rates",
        "projection",
        "offset",
        "leaf_means",
    )

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
    null_methods : list of str
        Names of the ways p-values were found, in the order of their codes; see
        `xaikit.statistics.tails`.
    """

    FILES: ClassVar[tuple[str, ...]] = ("trace_file", "features_file")

    STAGE: ClassVar[str] = "fit"
    TENSORS: ClassVar[tuple[str, ...]] = (
        "prototypes",
        "counts",
        "pair_counts",
        "contrast",
        "energy",
        "edge_zscores",
        "edge_pvalues",
        "edge_qvalues",
        "edge_null_methods",
        "discovery_zscores",
        "discovery_pvalues",
        "null_ablation",
        "null_injection",
        "test_ablation",
        "test_injection",
        "position_mean",
        "token_norms",
    )

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
    grid: list[int] = field(default_factory=list)
    num_images: int = 0
    num_test_images: int = 0
    num_null_images: int = 0
    null: str = "moments"
    null_block: int = 0
    null_methods: list[str] = field(default_factory=list)
    heldout: bool = False
    method: str = "kmeans"

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
