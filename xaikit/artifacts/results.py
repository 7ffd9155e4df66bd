"""The JSON artefacts: circuit, causal, target-causal and intervene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from xaikit.artifacts.edges import Edge, EdgeKey, key_of
from xaikit.artifacts.json_artifact import JsonArtifact
from xaikit.artifacts.json_records import (
    Agreement,
    Band,
    Chance,
    Completeness,
    Curve,
    LiveCluster,
    Resampled,
)


@dataclass(frozen=True, kw_only=True)
class ClusterEffect:
    """Effects of ablating or injecting one cluster's prototype (see CONTRACT, *Definitions*).

    p- and q-values are None where no image is fit for a test; ``…_testable`` says whether a
    permutation of images can change the effect at all.
    """

    cluster_id: int
    support: int
    ablation_effect: float
    injection_effect: float
    ablation_pvalue: float | None
    injection_pvalue: float | None
    ablation_qvalue: float | None = 1.0
    injection_qvalue: float | None = 1.0
    ablation_testable: bool = True
    injection_testable: bool = True
    src_name: str = ""


@dataclass(frozen=True, kw_only=True)
class EdgeEffect:
    """Effect of one edge on the predicted logits (see CONTRACT, *Definitions*).

    The alignment is None where ``intervene`` was not given the edges of ``target-causal``.
    ``live_effect`` is the mean ``1 − cos`` that ablating the edge causes in the model itself,
    compared with random edges of like cover.
    """

    cluster_id: int
    head: int
    dst_token: int | None
    support: int
    edge_effect: float
    edge_pvalue: float | None
    alignment_gain: float | None
    alignment_pvalue: float | None
    dst_cluster: int | None = None
    qvalue: float | None = 1.0
    testable: bool = True
    src_name: str = ""
    dst_kind: str = "patch"
    dst_name: str = ""
    live_effect: float | None = None
    live_pvalue: float | None = None
    live_qvalue: float | None = None
    layer: int | None = None
    next_layer: int | None = None

    @property
    def key(self) -> EdgeKey:
        """The edge's three numbers."""
        return key_of(self)


@dataclass(kw_only=True)
class Circuit(JsonArtifact):
    """Edges, ranked.

    Attributes
    ----------
    fit_file : str
    top_k : int
    rank, destination : str
    paths : list of Edge
    tested, significant : int
        Edges in the family, and those with q <= 0.05 among all of them.
    stability : dict
        Of ``--bootstrap``: how the circuits of resampled images agree with this one.
    layers : list of [int, int]
        Target and next layer of each layer, of a circuit of several.
    objective : dict
        What edges were ranked by, where that is not the embedding.
    """

    STAGE: ClassVar[str] = "circuit"
    RECORDS: ClassVar[dict[str, type]] = {"paths": Edge}

    FILES: ClassVar[tuple[str, ...]] = ("fit_file", "heatmaps")

    fit_file: str = ""
    top_k: int
    rank: str = "weight"
    destination: str = "token"
    max_qvalue: float | None = None
    paths: list[Edge]
    tested: int = 0
    significant: int | None = 0
    heatmaps: list[str] = field(default_factory=list)
    stability: Annotated[dict[str, Any], Resampled] = field(default_factory=dict)
    layers: list[list[int]] = field(default_factory=list)
    objective: dict[str, Any] = field(default_factory=dict)
    num_test_images: int = 0
    heldout: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The artefact as it is written, with the groups of its paths."""
        found = super().to_dict()
        by_head: dict[str, list[dict[str, Any]]] = {}
        by_cluster: dict[str, list[dict[str, Any]]] = {}
        for path in found["paths"]:
            by_head.setdefault(f"head_{path['head']}", []).append(path)
            by_cluster.setdefault(f"cluster_{path['cluster_id']}", []).append(path)
        found["groups"] = {"by_head": by_head, "by_cluster": by_cluster}
        return found


@dataclass(kw_only=True)
class Causal(JsonArtifact):
    """Effects of whole clusters in prototype space."""

    STAGE: ClassVar[str] = "causal"
    RECORDS: ClassVar[dict[str, type]] = {"effects": ClusterEffect}

    FILES: ClassVar[tuple[str, ...]] = ("features_file", "fit_file")

    features_file: str = ""
    fit_file: str = ""
    max_clusters: int
    num_permutations: int
    seed: int
    effects: list[ClusterEffect]
    num_test_images: int = 0
    heldout: bool = False


@dataclass(kw_only=True)
class TargetCausal(JsonArtifact):
    """Effects of single edges in prototype space."""

    STAGE: ClassVar[str] = "target-causal"
    RECORDS: ClassVar[dict[str, type]] = {"effects": EdgeEffect}

    FILES: ClassVar[tuple[str, ...]] = ("trace_file", "features_file", "fit_file", "circuit_file")

    trace_file: str = ""
    features_file: str = ""
    fit_file: str = ""
    circuit_file: str = ""
    top_n: int
    num_permutations: int
    seed: int
    effects: list[EdgeEffect]
    num_test_images: int = 0
    heldout: bool = False


@dataclass(kw_only=True)
class Intervention(JsonArtifact):
    """What the live model does when edges are edited (see CONTRACT, *Live interventions*).

    Attributes
    ----------
    full_effect : dict of str to float
        Mean change, by metric, when every logit of the layer is ablated.
    curves : list of dict
        One for each ranking, mode and metric: `ranking`, `destination`, `ablation`, `mode`,
        `metric`, `shares` of logit entries, `edges` behind each share (the last one may be
        covered in part, so that the share is exact), mean `effects`, `fractions` of the full
        effect, and the areas under the fractions, `area_linear` and `area_log`.
    random : list of dict
        The same of random edge sets, with `mean`, `low` and `high` (95 % of the draws).
    effects : list of EdgeEffect
        Single edges.
    clusters : list of dict
        Whole clusters ablated and injected, in prototype space and live.
    agreement : dict
        Spearman correlations of prototype-space and live effects.
    completeness : dict
        Of the circuit as one set: how much of the full effect removing it causes
        (`completeness`) and how much keeping only it avoids (`faithfulness`), with random sets
        of the same cover.
    heldout : bool
        Whether the circuit was chosen on other images.
    chance : dict
        The ranking that does most at 10 % of the entries, beside the best of as many random
        orders: `effect`, `random_best`, `random_mean`, `pvalue`.
    full_effects : dict
        `full_effect` of every ablation that curves were measured under.
    partners : list of str
        Whose logits took the place of each test image's, in order; of ``resample`` and ``pair``.
    objective : dict
        What single edges, and rankings that run the model, are judged by.
    layers : list of [int, int]
        Target and next layer of each edited layer, where there are several.
    command : str
        What made it on the command line, where it was a command of its own.
    """

    STAGE: ClassVar[str] = "intervene"
    RECORDS: ClassVar[dict[str, type]] = {"effects": EdgeEffect}

    FILES: ClassVar[tuple[str, ...]] = ("features_file", "fit_file", "circuit_file")

    full_effect: dict[str, float]
    curves: Annotated[list[dict[str, Any]], list[Curve]]
    random: Annotated[list[dict[str, Any]], list[Band]]
    effects: list[EdgeEffect]
    clusters: Annotated[list[dict[str, Any]], list[LiveCluster]] = field(default_factory=list)
    agreement: Annotated[dict[str, Any], Agreement] = field(default_factory=dict)
    completeness: Annotated[dict[str, Any], Completeness] = field(default_factory=dict)
    destination: str = "token"
    ablation: str = "mean"
    metrics: list[str] = field(default_factory=list)
    classifier: str | None = None
    num_images: int = 0
    heldout: bool = True
    features_file: str = ""
    fit_file: str = ""
    circuit_file: str = ""
    chance: Annotated[dict[str, Any], Chance] = field(default_factory=dict)
    full_effects: dict[str, dict[str, float]] = field(default_factory=dict)
    partners: list[str] = field(default_factory=list)
    objective: dict[str, Any] = field(default_factory=dict)
    layers: list[list[int]] = field(default_factory=list)
    command: str = ""

    def full_of(self, record: Mapping[str, Any]) -> float:
        """What ablating every logit does, in the metric and ablation of a curve or band."""
        full = self.full_effects.get(record.get("ablation", self.ablation), self.full_effect)
        return full.get(record["metric"], 0.0)
