"""`fit`: prototype logits of each cluster, what they explain, and every edge's null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.records import require_parent
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent
from xaikit.statistics.edge_null import EdgeNull, pair_null, token_null
from xaikit.statistics.multiple import benjamini_hochberg
from xaikit.statistics.sums import LogitSums, Predictions, contrast, pair_position_share

if TYPE_CHECKING:
    from torch import Tensor

DESTINATIONS = ("token", "cluster")
NULLS = ("auto", "moments", "sampled")
SMALL_SAMPLE = 20
"""Below so many test images, ``auto`` samples permutations instead of trusting normality."""


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Sums and labels of one part of the images."""

    indices: list[int]
    labels: Tensor
    sums: LogitSums
    pair_share: Tensor | None


def fit(
    trace: Trace,
    features: Features,
    *,
    destination: str = "token",
    num_permutations: int = 200,
    null: str = "auto",
    seed: int = 0,
    trace_file: str | None = None,
    features_file: str = "",
    progress: Progress = silent,
) -> Fit:
    """Fit prototypes on the discovery images and test every edge on the held-out ones.

    Parameters
    ----------
    trace : Trace
    features : Features
        Clusters of the same trace.
    destination : str
        ``token`` (edges end at a position) or ``cluster`` (at a cluster's tokens).
    num_permutations : int
        Permutations to sample, for ``causal`` and for the ``sampled`` null.
    null : str
        p-values of edges: ``moments`` (exact moments, normal), ``sampled``, or ``auto``, which
        samples below 20 test images.

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is unknown.
    """
    require_parent(features, "trace", trace, child_name="features")
    _check(destination, null, num_permutations)
    clusters = features.num_clusters
    discovery = features.discovery or list(range(len(trace)))
    train = _sums(trace, features.labels, discovery, clusters, progress)
    test = _sums(trace, features.labels, features.heldout, clusters, progress) or train
    assert train is not None
    assert test is not None
    draws = image_draws(len(test.indices), num_permutations)
    nulls = _nulls(trace, train, test, clusters, destination, draws, seed, progress)
    method = null
    if null == "auto":
        method = "moments" if len(test.indices) >= SMALL_SAMPLE else "sampled"
    pvalues = nulls[1].pvalues(method)
    scores: dict[str, Any] = dict(_predictions(train, train, destination).scores())
    norms = trace.residual_norms()
    return Fit(
        provenance=features.provenance.child(
            {
                "destination": destination,
                "num_permutations": num_permutations,
                "null": null,
                "seed": seed,
            },
            features=features.identity,
        ),
        trace_file=trace_file or str(trace.path or ""),
        features_file=features_file,
        destination=destination,
        **_prototypes(train, destination),
        energy=nulls[0].energy.float(),
        edge_zscores=nulls[1].zscores.float(),
        edge_pvalues=pvalues,
        edge_qvalues=benjamini_hochberg(pvalues),
        discovery_zscores=nulls[0].zscores.float(),
        null_ablation=nulls[1].null_ablation,
        null_injection=nulls[1].null_injection,
        test_ablation=nulls[1].ablation,
        test_injection=nulls[1].injection,
        position_mean=train.sums.position_mean.float(),
        token_norms=norms.mean(0) if norms is not None else torch.zeros(0),
        mse=_predictions(train, train, destination).mse(),
        **scores,
        heldout_r2=_predictions(train, test, destination).scores() if test is not train else {},
        tokens=trace.info.tokens,
        prefix_tokens=trace.info.prefix_tokens,
        grid=list(trace.info.grid),
        num_images=len(train.indices),
        num_test_images=len(test.indices),
        null=method,
    ).identify()


def image_draws(images: int, wanted: int) -> int:
    """Permutations to sample: none where there is only one image to permute."""
    return wanted if images > 1 else 0


def _check(destination: str, null: str, num_permutations: int) -> None:
    if destination not in DESTINATIONS:
        raise UsageError(f"--destination {destination}: expected one of {', '.join(DESTINATIONS)}")
    if null not in NULLS:
        raise UsageError(f"--null {null}: expected one of {', '.join(NULLS)}")
    if num_permutations < 1:
        raise UsageError(f"--num-permutations {num_permutations} is not a positive number")


def _sums(
    trace: Trace, labels: Tensor, indices: list[int], clusters: int, progress: Progress
) -> _Images | None:
    if not indices:
        return None
    sums = LogitSums(clusters, trace.info.heads, trace.info.tokens)
    for chosen, logits in trace.iter_logits(indices):
        sums.add(labels[chosen], logits)
        progress("images fitted", sums.images, len(indices))
    return _Images(indices=indices, labels=labels[np.sort(indices)], sums=sums, pair_share=None)


def _nulls(
    trace: Trace,
    train: _Images,
    test: _Images,
    clusters: int,
    destination: str,
    draws: int,
    seed: int,
    progress: Progress,
) -> tuple[EdgeNull, EdgeNull]:
    """Null of the discovery and of the test images; one and the same without a holdout."""
    build = token_null if destination == "token" else pair_null

    def null(part: _Images, count: int) -> EdgeNull:
        return build(
            trace,
            np.sort(part.indices),
            part.labels,
            part.sums,
            draws=count,
            seed=seed,
            progress=progress,
        )

    tested = null(test, draws)
    return (tested if test is train else null(train, 0)), tested


def _prototypes(train: _Images, destination: str) -> dict[str, Any]:
    sums = train.sums
    counts = sums.counts
    if destination == "token":
        prototypes, pair_counts = sums.prototypes, None
        found = contrast(prototypes, counts, sums.row_mean)
    else:
        prototypes, pair_counts = sums.pair_prototypes, sums.pair_counts.long()
        columns = sums.pair_counts.sum(0)
        mean = sums.pair_sums.sum(0) / columns.clamp(min=1.0)
        found = contrast(prototypes, counts, mean, sums.pair_counts)
    return {
        "prototypes": prototypes.float(),
        "counts": counts.long(),
        "pair_counts": pair_counts,
        "contrast": found.float(),
    }


def _predictions(train: _Images, test: _Images, destination: str) -> Predictions:
    if destination == "token":
        return Predictions(train.sums, test.sums)
    mean, clusters = train.sums.position_mean, train.sums.clusters
    return Predictions(
        train.sums,
        test.sums,
        destination,
        pair_position_share(train.labels, mean, clusters),
        pair_position_share(test.labels, mean, clusters),
    )
