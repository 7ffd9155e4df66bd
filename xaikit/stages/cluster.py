"""`cluster`: group tokens by which FFN gates they open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import file_of
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.errors import OptionError
from xaikit.passes.feed import StoredFeed, chunks
from xaikit.passes.guided import Measure, learn_guided_clusters
from xaikit.passes.learn import Clusters, SamplePlan, learn_clusters
from xaikit.passes.plan import split_candidates
from xaikit.passes.visitors import LabelImages
from xaikit.progress import Progress, silent
from xaikit.statistics.prefix import PREFIXES, prefix_clusters

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_info import TraceInfo

REVISION = 5
"""Raised where the same trace and options give other clusters than before."""
METHODS = ("kmeans", "guided")
_CHUNK_BYTES = 1 << 26


def number_or_auto(text: str) -> int | None:
    """Read a number, where the command line says ``auto`` for None."""
    if text.strip() == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number, or auto") from None


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How tokens are clustered.

    Attributes
    ----------
    num_clusters : int, optional
        `K`. Fewer distinct gate patterns leave clusters empty. None, on the command line ``auto``,
        is for `choose_clusters` to find.
    sample_tokens : int
        Tokens to learn from, drawn without replacement (see `sample_plan`); 0 takes all.
    holdout : float
        Share of images, in [0, 1), that clusters are not learnt on; stratified by folder.
    seed : int
        Of the sample, the starts and the holdout split.
    start_seed : int, optional
        Of the sample and the starts alone, to see how much they matter on the same split.
    method : str
        ``kmeans``, or ``guided``: by what gates predict of the next layer's attention. Guided
        clusters take all tokens of the images they are learnt on, and no seed.
    half : int, optional
        Learn on one half of the discovery images alone, 0 or 1, to see how much they matter.
    prefix : str
        ``own``: each kind of prefix token is a cluster of its own, numbered last. ``mixed``: all
        tokens are clustered alike.
    """

    num_clusters: int | None = option(
        16,
        "Clusters of tokens; auto: the fewest within one standard error of the best of a sweep.",
        least=1,
        parse=number_or_auto,
        metavar="<int>|auto",
    )
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
    half: int | None = option(None, least=0, most=1)
    method: str = option(
        "kmeans",
        "kmeans of gates, or guided by what gates predict of the next layer's attention.",
        choices=METHODS,
    )
    prefix: str = option(
        "own",
        "Class token and registers in clusters of their own, or mixed with the patches.",
        choices=PREFIXES,
    )

    @property
    def clusters(self) -> int:
        """`K`, where it is known.

        Raises
        ------
        OptionError
            Where it is still to be chosen.
        """
        if self.num_clusters is None:
            raise OptionError("num_clusters", "auto", "a number, which `choose_clusters` finds")
        return self.num_clusters

    def check(self) -> None:
        """Refuse a sample with fewer tokens than clusters."""
        if 0 < self.sample_tokens < (self.num_clusters or 0):
            raise OptionError(
                "sample_tokens",
                self.sample_tokens,
                f"at least one token for each of the {self.num_clusters} clusters, or 0 for all",
            )

    def check_rows(self, rows: int) -> None:
        """Refuse more clusters than there are tokens."""
        if self.clusters > rows:
            raise OptionError("num_clusters", self.num_clusters, f"at most the {rows} tokens")


def cluster(
    trace: Trace,
    options: ClusterOptions | None = None,
    *,
    measure: Measure | None = None,
    progress: Progress = silent,
    **given: Any,
) -> Features:
    """Cluster the gates of a trace.

    Parameters
    ----------
    trace : Trace
    options : ClusterOptions, optional
    **given
        Fields of `ClusterOptions`, in place of or beside the record.
    measure : callable, optional
        How much each token's attention matters (see `xaikit.passes.guided`); guided clusters
        otherwise go by the attention patterns alone.

    Returns
    -------
    Features
        `labels` of all images, held-out ones included.

    Raises
    ------
    UsageError
        Where a number is out of range, or a trace to learn guided clusters from holds no queries
        and keys.
    """
    o, info = resolve(ClusterOptions, options, given), trace.info
    o.check_rows(len(trace) * info.tokens)
    ids, groups = info.candidate_ids()
    parts = split_candidates(ids, groups, o.holdout, o.seed)
    start = o.seed if o.start_seed is None else o.start_seed
    pair = (trace.layer, trace.next_layer)
    feed = StoredFeed(trace)
    learning = parts["discovery"] if o.half is None else half_of(parts["discovery"], o.seed, o.half)
    shared = prefix_clusters(o.clusters, info.prefix_kinds, o.prefix)
    if o.method == "guided":
        learnt, _ = learn_guided_clusters(
            feed, [pair], learning, shared, measure=measure, progress=progress
        )
    else:
        plan = SamplePlan.make(learning, info.tokens, o.sample_tokens, start, prefix=shared.tokens)
        learnt = learn_clusters(feed, [pair], plan, shared, start, progress=progress)
    found = learnt[pair]
    labeller = LabelImages(found.labeller(), o.clusters, info.candidates, info.tokens)
    size = max(1, _CHUNK_BYTES // (info.tokens * info.ffn_width))
    every = chunks(info.candidate_positions(), size)
    feed.visit(every, {pair: [labeller]}, what="images labelled", progress=progress)
    chosen = recorded(o, measured=measure is not None)
    return assemble(info, found, labeller.labels, parts, chosen, file_of(trace))


def half_of(images: Sequence[int], seed: int, half: int) -> list[int]:
    """One of two random halves of some images, ascending."""
    drawn = np.random.default_rng([seed, 8]).permutation(np.asarray(images, dtype=np.int64))
    return sorted(drawn[half::2].tolist())


def recorded(options: ClusterOptions, *, measured: bool) -> dict[str, Any]:
    """The options as features keep them, and whether guided clusters asked the model."""
    asked = {"measured": measured} if options.method == "guided" else {}
    return {**deciding(options), **asked}


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
        method=options["method"],
        prefix=options["prefix"],
        kinds=list(prefix_clusters(clusters, info.prefix_kinds, options["prefix"]).kinds),
        **(vars(found.guided) if found.guided is not None else {}),
        discovery=split["discovery"],
        heldout=split["heldout"],
        lost=[i for i in parts["heldout"] if i not in place],
        recorded=info.recorded(),
    ).identify()
