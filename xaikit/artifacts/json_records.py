"""Records of JSON files that have no class: what each key of them is, see `schema`."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Curve(TypedDict):
    """What a ranking's first edges do, by share of the entries."""

    ranking: str
    destination: str
    ablation: str
    mode: str
    metric: str
    shares: list[float]
    edges: NotRequired[list[int]]
    effects: list[float]
    fractions: list[float]
    area_linear: float
    area_log: float
    cpr: NotRequired[float | None]
    cmd: NotRequired[float | None]
    side: NotRequired[str | None]


class Band(TypedDict):
    """The same of random edges."""

    ranking: NotRequired[str]
    destination: NotRequired[str]
    ablation: NotRequired[str]
    mode: str
    metric: str
    draws: NotRequired[int]
    shares: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    fractions: list[float]
    area_linear: NotRequired[float]
    area_log: NotRequired[float]


class LiveCluster(TypedDict):
    """A whole cluster in prototype space and in the live model."""

    cluster_id: int
    support: int
    ablation_effect: float
    injection_effect: float
    live_ablation: float | None
    live_injection: float | None


class Agreement(TypedDict):
    """Correlations of prototype-space and live effects."""

    clusters: int
    ablation: float | None
    injection: float | None
    edges: NotRequired[float | None]


class Completeness(TypedDict):
    """A circuit as one set."""

    edges: int
    share: float
    removed: float
    kept: float
    completeness: float
    faithfulness: float
    random_mean: float | None
    random_high: float | None
    pvalue: float


class Chance(TypedDict):
    """The best ranking beside the best of as many random orders."""

    best: str
    rankings: int
    effect: float
    random_mean: float
    random_best: float
    pvalue: float
    side: NotRequired[str]


class BaselineRow(TypedDict):
    """One prediction."""

    prediction: str
    destination: str | None
    r2: float
    added: float | None
    added_sd: float | None


class StabilityEnd(TypedDict):
    """One kind of destination of a number of clusters."""

    r2_added: float
    r2_added_sd: float
    jaccard: float
    jaccard_sd: float
    jaccard_chance: float | None
    jaccard_seeds: float | None
    jaccard_halves: float | None
    jaccard_halves_patches: float | None


class StabilityRow(TypedDict):
    """One number of clusters."""

    num_clusters: int
    clusters_used: float
    inertia: float
    ari: float | None
    ari_halves: float | None
    token: StabilityEnd
    cluster: StabilityEnd


class SweepRow(TypedDict):
    """One number of clusters of a sweep."""

    num_clusters: int
    r2_added: float
    r2_added_se: float


class Resampled(TypedDict):
    """How the circuits of resampled images agree."""

    resamples: int
    jaccard: float
    jaccard_sd: float
    jaccard_chance: float


class Shared(TypedDict):
    """What every artefact says."""

    identity: str
    xaikit_version: str
    model: str
    pretrained: str
    weights_fingerprint: str
    images_fingerprint: str
    layer: int
    next_layer: int
    options: dict[str, Any]
    parents: dict[str, str]


class Result(TypedDict):
    """What a manifest says of a result."""

    key: str
    identity: str
    stage: str
    revision: int
    inputs: dict[str, str]
    options: dict[str, Any]
    files: list[str]
    file_digests: NotRequired[list[str]]


class Manifest(TypedDict):
    """Of the folder of a layer."""

    results: dict[str, Result]


class Run(TypedDict):
    """Of the folder of a run."""

    pairs: list[list[int]]
    folders: list[str]
    options: dict[str, Any]
    command: NotRequired[str]


class Pass(TypedDict):
    """Header of what an interrupted pass left."""

    key: str
    done: int
    skipped: list[list[Any]]


class GraphNode(TypedDict):
    """A cluster of a layer."""

    id: str
    layer: int
    cluster: int
    size: int
    activation_rate: float


class GraphEdge(TypedDict):
    """A head's edge, or the tokens that two clusters share."""

    source: str
    target: str
    key: str
    kind: str


class Graph(TypedDict):
    """Node-link data."""

    graph: dict[str, Any]
    nodes: list[GraphNode]
    edges: list[GraphEdge]


class Shard(TypedDict):
    """A file of a trace."""

    file: str
    images: int
    digest: str


class Index(TypedDict):
    """Of a folder of shards, beside what a trace says."""

    shards: list[Shard]
