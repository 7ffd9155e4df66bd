"""`fit`: prototype logits of each cluster, what they explain, and every edge's null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import require_parent
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import OptionError
from xaikit.progress import Progress, silent
from xaikit.statistics.controls import Part, control_scores
from xaikit.statistics.edge_null import EdgeNull, pair_null, token_null
from xaikit.statistics.multiple import benjamini_hochberg
from xaikit.statistics.streaming import block_null
from xaikit.statistics.sums import LogitSums, Predictions, contrast, pair_position_share

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import TraceInfo

DESTINATIONS = ("token", "cluster")
NULLS = ("auto", "moments", "sampled")
SMALL_SAMPLE = 20
"""Below so many test images, ``auto`` samples permutations instead of trusting normality."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is fitted, and how edges are tested.

    Attributes
    ----------
    destination : str
        ``token`` (edges end at a position) or ``cluster`` (at a cluster's tokens).
    num_permutations : int
        Permutations to sample, for ``causal`` and for the ``sampled`` null.
    null : str
        p-values of edges: ``moments`` (exact moments, normal), ``sampled``, or ``auto``, which
        samples below 20 test images.
    null_block : int
        Permute label maps within random blocks of so many images, as the streaming route does;
        0 permutes all of them (for cluster destinations, blocks of 64).
    controls : bool
        Also score labels shuffled over images and clusters of positions, in one more pass.
    """

    destination: str = option("token", "What an edge ends at.", choices=DESTINATIONS)
    num_permutations: int = option(200, "Image permutations.", panel="Statistics", least=1)
    null: str = option(
        "auto",
        "p-values of edges; auto samples below 20 test images.",
        panel="Statistics",
        choices=NULLS,
    )
    null_block: int = option(
        0,
        "Permute within random blocks of so many images; 0: over all, or blocks of 32 with "
        "--stream.",
        panel="Statistics",
        least=0,
    )
    seed: int = option(0, "Of everything random.", panel="Running", least=0)
    controls: bool = option(True)

    def check(self) -> None:
        """Refuse blocks in which nothing can be permuted."""
        if self.null_block == 1:
            raise OptionError("null_block", self.null_block, "2 or more images, or 0")


@dataclass(frozen=True, kw_only=True)
class FitPart:
    """What is known of one part of the images.

    Attributes
    ----------
    sums : LogitSums
    null : EdgeNull
    pair_share : callable
        `pair_position_share` of a position-only mean over these images.
    draw_images : int
        Images that sampled permutations permute.
    """

    sums: LogitSums
    null: EdgeNull
    pair_share: Callable[[Tensor], Tensor | None]
    draw_images: int


def fit(
    trace: Trace,
    features: Features,
    options: FitOptions | None = None,
    *,
    trace_file: str | None = None,
    features_file: str = "",
    progress: Progress = silent,
    **given: Any,
) -> Fit:
    """Fit prototypes on the discovery images and test every edge on the held-out ones.

    Parameters
    ----------
    trace : Trace
    features : Features
        Clusters of the same trace.
    options : FitOptions, optional
    **given
        Fields of `FitOptions`, in place of or beside the record.

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is unknown.
    """
    require_parent(features, "trace", trace, child_name="features")
    o = resolve(FitOptions, options, given)
    discovery = features.discovery or list(range(len(trace)))
    recorded = deciding(o)

    def part(indices: list[int], draws: int) -> FitPart:
        images = np.sort(indices)
        return _stored_part(trace, features, images, draws, recorded, progress)

    tested = features.heldout or discovery
    test = part(tested, image_draws(len(tested), o.num_permutations))
    train = part(discovery, 0) if features.heldout else test
    norms = trace.residual_norms()
    return assemble(
        features,
        trace.info,
        train=train,
        test=test,
        options=recorded,
        controls=_controls(trace, features, train, test, recorded) if o.controls else {},
        token_norms=norms.mean(0) if norms is not None else torch.zeros(0),
        trace_file=trace_file or str(trace.path or ""),
        features_file=features_file,
    )


def assemble(
    features: Features,
    info: TraceInfo,
    *,
    train: FitPart,
    test: FitPart,
    options: dict[str, Any],
    controls: dict[str, float],
    token_norms: Tensor,
    trace_file: str,
    features_file: str,
) -> Fit:
    """Put a fit together; `train` and `test` are the same object where nothing is held out."""
    destination, method = options["destination"], options["null"]
    if method == "auto":
        method = "moments" if test.sums.images >= SMALL_SAMPLE else "sampled"
    pvalues = test.null.pvalues(method)
    scores: dict[str, Any] = dict(_predictions(train, train, destination).scores())
    return Fit(
        provenance=features.provenance.child(options, features=features.identity),
        trace_file=trace_file,
        features_file=features_file,
        destination=destination,
        **_prototypes(train.sums, destination),
        energy=train.null.energy.float(),
        edge_zscores=test.null.zscores.float(),
        edge_pvalues=pvalues,
        edge_qvalues=benjamini_hochberg(pvalues),
        discovery_zscores=train.null.zscores.float(),
        null_ablation=test.null.null_ablation,
        null_injection=test.null.null_injection,
        test_ablation=test.null.ablation,
        test_injection=test.null.injection,
        position_mean=train.sums.position_mean.float(),
        token_norms=token_norms,
        mse=_predictions(train, train, destination).mse(),
        **scores,
        heldout_r2=_predictions(train, test, destination).scores() if test is not train else {},
        controls=controls,
        tokens=info.tokens,
        prefix_tokens=info.prefix_tokens,
        grid=list(info.grid),
        num_images=train.sums.images,
        num_test_images=test.sums.images,
        num_null_images=test.draw_images,
        null=method,
    ).identify()


def image_draws(images: int, wanted: int) -> int:
    """Permutations to sample: none where there is only one image to permute."""
    return wanted if images > 1 else 0


def _stored_part(
    trace: Trace,
    features: Features,
    images: np.ndarray,
    draws: int,
    options: dict[str, Any],
    progress: Progress,
) -> FitPart:
    labels, clusters = features.labels, features.num_clusters
    sums = LogitSums(clusters, trace.info.heads, trace.info.tokens)
    for chosen, logits in trace.iter_logits(images):
        sums.add(labels[chosen], logits)
        progress("images fitted", sums.images, len(images))
    own, block = labels[images], options["null_block"]
    seed, destination = options["seed"], options["destination"]
    if block:
        null = block_null(
            trace,
            images,
            own,
            sums,
            block=block,
            destination=destination,
            draws=draws,
            seed=seed,
            progress=progress,
        )
    else:
        build = token_null if destination == "token" else pair_null
        null = build(trace, images, own, sums, draws=draws, seed=seed, progress=progress)
    return FitPart(
        sums=sums,
        null=null,
        pair_share=lambda mean: pair_position_share(own, mean, clusters),
        draw_images=null.draw_images if block else len(images),
    )


def _controls(
    trace: Trace, features: Features, train: FitPart, test: FitPart, options: dict[str, Any]
) -> dict[str, float]:
    def part(indices: list[int], sums: LogitSums) -> Part:
        images = np.sort(indices)
        return Part(
            labels=features.labels[images],
            sums=sums,
            chunks=lambda: (logits for _, logits in trace.iter_logits(images)),
        )

    learnt = part(features.discovery or list(range(len(trace))), train.sums)
    tested = learnt if test is train else part(features.heldout, test.sums)
    destination = options["destination"]
    found = control_scores(
        learnt,
        tested,
        features.num_clusters,
        [destination],
        prefix=trace.info.prefix_tokens,
        grid=trace.info.grid,
        seed=options["seed"],
    )
    return found[destination]


def _prototypes(sums: LogitSums, destination: str) -> dict[str, Any]:
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


def _predictions(train: FitPart, test: FitPart, destination: str) -> Predictions:
    if destination == "token":
        return Predictions(train.sums, test.sums)
    mean = train.sums.position_mean
    return Predictions(
        train.sums, test.sums, destination, train.pair_share(mean), test.pair_share(mean)
    )
