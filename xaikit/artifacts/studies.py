"""The JSON artefacts of `baselines` and `stability`: what to hold a result against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from xaikit.artifacts.json_artifact import JsonArtifact
from xaikit.artifacts.json_records import BaselineRow, StabilityRow, SweepRow


@dataclass(kw_only=True)
class Baselines(JsonArtifact):
    """What predictions of the logits explain on held-out images.

    Attributes
    ----------
    num_clusters, seed : int
    holdout : float
    draws : int
        Of the shuffled labels.
    rows : list of dict
        One for each prediction and destination: `prediction`, `destination` (None where it has
        none), `r2`, and where it is beyond position `added` and `added_sd` (over draws).
    """

    STAGE: ClassVar[str] = "baselines"

    FILES: ClassVar[tuple[str, ...]] = ("trace_file",)

    trace_file: str = ""
    num_clusters: int
    holdout: float
    draws: int
    seed: int
    num_images: int
    num_test_images: int
    rows: Annotated[list[dict[str, Any]], list[BaselineRow]]


@dataclass(kw_only=True)
class Stability(JsonArtifact):
    """How clusters and circuits hold across numbers of clusters, seeds and images.

    Attributes
    ----------
    rank : str
    top_k, seeds, resamples, seed : int
    holdout : float
    rows : list of dict
        One for each number of clusters: `num_clusters`, `clusters_used`, `inertia`, `ari`
        (adjusted Rand index of the test images' patches, mean over pairs of seeds), `ari_halves`
        (of clusterings learnt on disjoint halves of the images), and by destination the held-out
        `r2_added` (mean over seeds, `r2_added_sd`), `jaccard` (of resamples with all images,
        `jaccard_sd`), `jaccard_pairwise`, `jaccard_chance`, `jaccard_seeds` (of seeds, clusters
        matched), `jaccard_halves` (of the two halves), both also as ``…_patches``, of circuits
        without the prefix tokens' edges, and `survival` (mean over the circuit's edges).
    """

    STAGE: ClassVar[str] = "stability"

    FILES: ClassVar[tuple[str, ...]] = ("trace_file",)

    trace_file: str = ""
    rank: str
    top_k: int
    seeds: int
    resamples: int
    holdout: float
    seed: int
    num_images: int
    num_test_images: int
    rows: Annotated[list[dict[str, Any]], list[StabilityRow]]


@dataclass(kw_only=True)
class ClusterSweep(JsonArtifact):
    """How much clusters add by their number, and the number that was chosen.

    Attributes
    ----------
    method, prefix, destination : str
    num_clusters : int
        The chosen one: the smallest within one standard error of the best.
    folds : int
        Clusters are learnt on all folds of the images but one and scored on that one, in turn.
    num_images : int
        Discovery images that were used.
    layers : list of [int, int]
        Target and next layer of each pair; figures are means over them.
    rows : list of dict
        One for each number of clusters, ascending: `num_clusters`, `r2_added` (mean over folds),
        `r2_added_se` (its standard error).
    """

    STAGE: ClassVar[str] = "choose-clusters"

    method: str
    prefix: str
    destination: str
    num_clusters: int
    folds: int
    num_images: int
    layers: list[list[int]]
    rows: Annotated[list[dict[str, Any]], list[SweepRow]]
