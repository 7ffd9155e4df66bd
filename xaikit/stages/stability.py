"""`stability`: do clusters and circuits hold across seeds, images and numbers of clusters?

Like `run_all`, it runs other stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.options import deciding, like, option, resolve
from xaikit.artifacts.records import file_of
from xaikit.artifacts.studies import Stability
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.progress import Progress, silent
from xaikit.stages.cluster import ClusterOptions, cluster
from xaikit.statistics.agreement import adjusted_rand_index, match_clusters
from xaikit.statistics.controls import DESTINATIONS, image_part, label_scores
from xaikit.statistics.stability import (
    WEIGHTED,
    WeightedSums,
    bootstrap_weights,
    circuit_agreement,
    jaccard,
    top_edges,
    weighted_sums,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StabilityOptions:
    """What `stability` varies, and how it chooses circuits.

    Attributes
    ----------
    num_clusters : sequence of int
        Each is clustered with each of `seeds` k-means seeds, on the same split.
    seeds, resamples : int
    rank : str
        ``weight``, ``contrast`` or ``energy``.
    method, prefix : str
        As in `ClusterOptions`; no seed enters guided clusters, whose seeds agree by definition.
    """

    num_clusters: Sequence[int] = option(
        (8, 16, 32, 64), "Numbers of clusters to compare.", least=1, some=True
    )
    seeds: int = option(3, "k-means seeds.", panel="Statistics", least=1)
    resamples: int = option(
        50, "Resamples of the images.", flag="--bootstrap", panel="Statistics", least=1
    )
    rank: str = option("weight", "What edges are ordered by.", choices=WEIGHTED)
    top_k: int = option(50, "Edges to keep.", least=1)
    holdout: float = option(
        0.5,
        "Share of images kept back for testing, stratified by folder.",
        panel="Statistics",
        least=0.0,
        below=1.0,
    )
    sample_tokens: int = option(20000, "Tokens to learn clusters from; 0 = all.", least=0)
    method: str = like(ClusterOptions, "method")
    prefix: str = like(ClusterOptions, "prefix")
    seed: int = option(0, "Of everything random.", panel="Running", least=0)


def stability(
    trace: Trace,
    options: StabilityOptions | None = None,
    *,
    progress: Progress = silent,
    **given: Any,
) -> Stability:
    """Sweep the number of clusters.

    Returns
    -------
    Stability
        See there for what a row holds. Clusters, circuits and resamples are of the discovery
        images, R-squared of the held-out ones.

    Raises
    ------
    UsageError
        Where a number is out of range.
    """
    o = resolve(StabilityOptions, options, given)
    runs: list[list[Features]] = []
    for at, k in enumerate(o.num_clusters):
        runs.append([_clustered(trace, k, o, o.seed + start) for start in range(o.seeds)])
        progress("numbers of clusters", at + 1, len(o.num_clusters))
    first = runs[0][0]
    train = image_part(trace, first.labels, first.discovery)
    test = image_part(trace, first.labels, first.heldout) if first.heldout else train
    flat = [features for each in runs for features in each]
    discovery, tested = np.sort(first.discovery), np.sort(first.test_images)
    scores = label_scores(
        train,
        test,
        [(features.labels[discovery], features.labels[tested]) for features in flat],
        [features.num_clusters for features in flat],
        DESTINATIONS,
    )
    rows = []
    for at, (k, each) in enumerate(zip(o.num_clusters, runs, strict=True)):
        mine = slice(at * o.seeds, (at + 1) * o.seeds)
        halves = [_clustered(trace, k, o, o.seed, half) for half in (0, 1)]
        row = _clusters_row(each, halves, trace.info.prefix_tokens)
        for name in DESTINATIONS:
            added = np.array([one["added"] for one in scores[name][mine]])
            row[name] = {
                "r2_added": float(added.mean()),
                "r2_added_sd": float(added.std(ddof=1)) if len(added) > 1 else 0.0,
                **_circuits(trace, each, halves, train.sums.position_mean.float(), name, o),
            }
        rows.append(row)
        progress("circuits resampled", at + 1, len(runs))
    provenance = trace.provenance.child(deciding(o))
    return Stability(
        provenance=provenance,
        trace_file=file_of(trace),
        rank=o.rank,
        top_k=o.top_k,
        seeds=o.seeds,
        resamples=o.resamples,
        holdout=o.holdout,
        seed=o.seed,
        num_images=len(discovery),
        num_test_images=len(tested),
        rows=rows,
    ).identify()


def _clustered(
    trace: Trace, k: int, o: StabilityOptions, start: int, half: int | None = None
) -> Features:
    return cluster(
        trace,
        num_clusters=k,
        sample_tokens=o.sample_tokens,
        seed=o.seed,
        start_seed=start,
        half=half,
        holdout=o.holdout,
        method=o.method,
        prefix=o.prefix,
    )


def _patches(features: Features, first: int) -> np.ndarray:
    """Labels of the patches of the test images: those of prefix tokens may agree by definition."""
    return features.labels[features.test_images, first:].numpy().ravel()


def _clusters_row(runs: list[Features], halves: list[Features], first: int) -> dict[str, Any]:
    """What one number of clusters gives, over seeds and over disjoint halves of the images."""
    labels = [_patches(features, first) for features in runs]
    pairs = [adjusted_rand_index(one, other) for one, other in combinations(labels, 2)]
    return {
        "num_clusters": runs[0].num_clusters,
        "clusters_used": float(np.mean([int((f.cluster_sizes > 0).sum()) for f in runs])),
        "inertia": float(np.mean([features.inertia for features in runs])),
        "ari": float(np.mean(pairs)) if pairs else None,
        "ari_halves": adjusted_rand_index(*(_patches(features, first) for features in halves)),
    }


def _circuits(
    trace: Trace,
    runs: list[Features],
    halves: list[Features],
    position_mean: Tensor,
    destination: str,
    o: StabilityOptions,
) -> dict[str, Any]:
    """Agreement of circuits over resamples of the first seed, over seeds and over halves."""
    images = len(runs[0].discovery)
    whole = torch.ones(1, images)
    resampled = torch.cat([whole, bootstrap_weights(images, o.resamples, o.seed)])
    sums = [
        _sums(trace, features, resampled if at == 0 else whole, position_mean, destination)
        for at, features in enumerate(runs)
    ]
    chosen = [
        top_edges(sums[0].scores(o.rank, at), sums[0].support(at), o.top_k)
        for at in range(1 + o.resamples)
    ]
    found = circuit_agreement(chosen[0], chosen[1:], int(sums[0].support(0).sum()))
    patches = _between_patches(trace, runs[0], sums[0].support(0), destination)
    seeds = [
        _agreement(runs[0], sums[0], features, other, patches, o)
        for features, other in zip(runs[1:], sums[1:], strict=True)
    ]
    two = [_sums(trace, features, whole, position_mean, destination) for features in halves]
    half = _agreement(halves[0], two[0], halves[1], two[1], patches, o)
    return {
        "jaccard": found.jaccard,
        "jaccard_sd": found.jaccard_sd,
        "jaccard_pairwise": found.jaccard_pairwise,
        "jaccard_chance": found.jaccard_chance,
        "jaccard_seeds": float(np.mean([each for each, _ in seeds])) if seeds else None,
        "jaccard_seeds_patches": float(np.mean([each for _, each in seeds])) if seeds else None,
        "jaccard_halves": half[0],
        "jaccard_halves_patches": half[1],
        "survival": float(found.survival.mean()),
    }


def _between_patches(trace: Trace, features: Features, support: Tensor, destination: str) -> Tensor:
    """Edges of `support` neither of whose ends is a prefix token's ``[cluster, head, dst]``."""
    own, kept = len(features.kinds), torch.ones_like(support, dtype=torch.bool)
    kept[len(kept) - own :] = False
    if destination == "cluster":
        kept[:, :, len(kept) - own :] = False
    else:
        kept[:, :, : trace.info.prefix_tokens] = False
    return kept


def _agreement(
    one: Features,
    one_sums: WeightedSums,
    two: Features,
    two_sums: WeightedSums,
    patches: Tensor,
    o: StabilityOptions,
) -> tuple[float, float]:
    """Jaccard index of two clusterings' circuits, of all edges and of those between patches."""
    labels = [each.labels.numpy().ravel() for each in (one, two)]
    match = torch.from_numpy(match_clusters(labels[0], labels[1], one.num_clusters))
    own = one_sums.scores(o.rank, 0), one_sums.support(0)
    other = [table[match] for table in (two_sums.scores(o.rank, 0), two_sums.support(0))]
    if two_sums.pair_counts is not None:
        other = [table[:, :, match] for table in other]
    found = [
        jaccard(
            top_edges(own[0], own[1] & kept, o.top_k), top_edges(other[0], other[1] & kept, o.top_k)
        )
        for kept in (torch.ones_like(patches), patches)
    ]
    return found[0], found[1]


def _sums(
    trace: Trace, features: Features, weights: Tensor, position_mean: Tensor, destination: str
) -> WeightedSums:
    chunks = trace.iter_logits(np.sort(features.discovery))
    return weighted_sums(
        ((features.labels[at], logits) for at, logits in chunks),
        weights,
        position_mean,
        features.num_clusters,
        destination,
    )
