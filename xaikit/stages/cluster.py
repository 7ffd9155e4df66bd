"""`cluster`: group tokens by which FFN gates they open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.errors import OptionError
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor


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
    trace_file: str | None = None,
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
    import torch

    from xaikit.images.split import stratified_split
    from xaikit.statistics.kmeans import kmeans

    o = resolve(ClusterOptions, options, given)
    o.check_rows(len(trace) * trace.info.tokens)
    discovery, heldout = stratified_split(trace.images, trace.info.groups, o.holdout, o.seed)
    start = o.seed if o.start_seed is None else o.start_seed
    sample = sample_gates(trace, discovery, o.sample_tokens, start)
    result = kmeans(sample, o.num_clusters, seed=start, progress=progress)
    labels = label_images(trace, result.centroids, result.counts, progress)
    sizes = torch.bincount(labels.reshape(-1), minlength=o.num_clusters)
    centroids = torch.from_numpy(np.ascontiguousarray(result.centroids))
    return Features(
        provenance=trace.provenance.child(deciding(o), trace=trace.identity),
        trace_file=trace_file or str(trace.path or ""),
        num_clusters=o.num_clusters,
        labels=labels,
        centroids=centroids,
        cluster_sizes=sizes,
        cluster_activation_rates=centroids.mean(1),
        inertia=float(result.inertia),
        distinct_points=int(result.distinct_points),
        discovery=[int(i) for i in discovery],
        heldout=[int(i) for i in heldout],
    ).identify()


def sample_gates(trace: Trace, images: list[int], count: int, seed: int) -> np.ndarray:
    """Gates ``[sample, ffn]`` uint8 of the tokens that `sample_plan` chooses."""
    from xaikit.statistics.sampling import sample_plan

    plan = dict(sample_plan(images, trace.info.tokens, count, seed))
    parts = []
    for indices, gates in trace.iter_gates(list(plan)):
        found = gates.numpy()
        parts += [found[at][plan[int(image)]] for at, image in enumerate(indices)]
    return np.concatenate(parts)


def label_images(
    trace: Trace, centroids: np.ndarray, counts: np.ndarray, progress: Progress
) -> Tensor:
    """Nearest centroid of every token ``[image, token]`` int64, in chunks."""
    import torch

    from xaikit.statistics.kmeans import assign

    labels = torch.empty(len(trace), trace.info.tokens, dtype=torch.int64)
    for indices, gates in trace.iter_gates():
        found = assign(gates.reshape(-1, gates.shape[-1]).numpy(), centroids, counts)
        labels[indices] = torch.from_numpy(found).reshape(len(indices), -1)
        progress("images labelled", int(indices[-1]) + 1, len(trace))
    return labels
