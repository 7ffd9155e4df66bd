"""`cluster`: group tokens by which FFN gates they open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import file_of
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.errors import OptionError
from xaikit.passes.feed import StoredFeed, chunks
from xaikit.passes.learn import Clusters, SamplePlan, learn_clusters
from xaikit.passes.plan import split_candidates
from xaikit.passes.visitors import LabelImages
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_info import TraceInfo

REVISION = 2
"""Raised where the same trace and options give other clusters than before."""
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How tokens are clustered.

    Attributes
    ----------
    num_clusters : int
        `K`. Fewer distinct gate patterns leave clusters empty.
    sample_tokens : int
        Tokens to learn from, drawn without replacement (see `sample_plan`); 0 takes all.
    holdout : float
        Share of images, in [0, 1), that clusters are not learnt on; stratified by folder.
    seed : int
        Of the sample, the starts and the holdout split.
    start_seed : int, optional
        Of the sample and the starts alone, to see how much they matter on the same split.
    """

    num_clusters: int = option(16, "Clusters of tokens.", least=1)
    sample_tokens: int = option(20000, "Tokens to learn clusters from; 0 = all.", least=0)
    holdout: float = option(
        0.0,
        "Share of images kept back for testing, stratified by folder.",
        panel="Statistics",
        least=0.0,
        below=1.0,
    )
    seed: int = option(0, "Of everything random.", panel="Running", least=0)
    start_seed: int | None = option(None, least=0)

    def check(self) -> None:
        """Refuse a sample with fewer tokens than clusters."""
        if 0 < self.sample_tokens < self.num_clusters:
            raise OptionError(
                "sample_tokens",
                self.sample_tokens,
                f"at least one token for each of the {self.num_clusters} clusters, or 0 for all",
            )

    def check_rows(self, rows: int) -> None:
        """Refuse more clusters than there are tokens."""
        if self.num_clusters > rows:
            raise OptionError("num_clusters", self.num_clusters, f"at most the {rows} tokens")


def cluster(
    trace: Trace,
    options: ClusterOptions | None = None,
    *,
    progress: Progress = silent,
    **given: Any,
) -> Features:
    """Cluster the gates of a trace with k-means.

    Parameters
    ----------
    trace : Trace
    options : ClusterOptions, optional
    **given
        Fields of `ClusterOptions`, in place of or beside the record.

    Returns
    -------
    Features
        `labels` of all images, held-out ones included.

    Raises
    ------
    UsageError
        Where a number is out of range.
    """
    o, info = resolve(ClusterOptions, options, given), trace.info
    o.check_rows(len(trace) * info.tokens)
    ids, groups = info.candidate_ids()
    parts = split_candidates(ids, groups, o.holdout, o.seed)
    start = o.seed if o.start_seed is None else o.start_seed
    pair = (trace.layer, trace.next_layer)
    feed = StoredFeed(trace)
    plan = SamplePlan.make(parts["discovery"], info.tokens, o.sample_tokens, start)
    found = learn_clusters(feed, [pair], plan, o.num_clusters, start, progress=progress)[pair]
    labeller = LabelImages(found.labeller(), o.num_clusters, info.candidates, info.tokens)
    size = max(1, _CHUNK_BYTES // (info.tokens * info.ffn_width))
    every = chunks(info.candidate_positions(), size)
    feed.visit(every, {pair: [labeller]}, what="images labelled", progress=progress)
    return assemble(info, found, labeller.labels, parts, deciding(o), file_of(trace))


def assemble(
    info: TraceInfo,
    found: Clusters,
    labels: Tensor,
    parts: Mapping[str, list[int]],
    options: dict[str, Any],
    trace_file: str,
) -> Features:
    """Put features together.

    Parameters
    ----------
    labels : Int[Tensor, "image token"]
        Of the used images.
    parts : mapping of str to list of int
        Candidates of each part of the images.
    """
    place = {int(at): row for row, at in enumerate(info.candidate_positions())}
    split = {name: [place[i] for i in images if i in place] for name, images in parts.items()}
    clusters = len(found.centroids)
    return Features(
        provenance=info.provenance.child(options, trace=info.identity),
        trace_file=trace_file,
        num_clusters=clusters,
        labels=labels,
        centroids=found.centroids,
        cluster_sizes=torch.bincount(labels.reshape(-1), minlength=clusters),
        cluster_activation_rates=found.centroids.mean(1),
        inertia=found.inertia,
        distinct_points=found.distinct_points,
        discovery=split["discovery"],
        heldout=split["heldout"],
        lost=[i for i in parts["heldout"] if i not in place],
        recorded=info.recorded(),
    ).identify()
