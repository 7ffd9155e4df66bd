"""`cluster`: group tokens by which FFN gates they open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor


def cluster(
    trace: Trace,
    *,
    num_clusters: int = 16,
    sample_tokens: int = 20000,
    seed: int = 0,
    holdout: float = 0.0,
    start_seed: int | None = None,
    trace_file: str | None = None,
    progress: Progress = silent,
) -> Features:
    """Cluster the gates of a trace with k-means.

    Parameters
    ----------
    trace : Trace
    num_clusters : int
        `K`. Fewer distinct gate patterns leave clusters empty.
    sample_tokens : int
        Tokens to learn from, drawn without replacement (see `sample_plan`); 0 takes all.
    seed : int
        Of the sample, the starts and the holdout split.
    holdout : float
        Share of images, in [0, 1), that clusters are not learnt on; stratified by folder.
    start_seed : int, optional
        Of the sample and the starts alone, to see how much they matter on the same split.

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

    check_options(num_clusters, sample_tokens, holdout, len(trace) * trace.info.tokens)
    discovery, heldout = stratified_split(trace.images, trace.info.groups, holdout, seed)
    start = seed if start_seed is None else start_seed
    sample = sample_gates(trace, discovery, sample_tokens, start)
    result = kmeans(sample, num_clusters, seed=start, progress=progress)
    labels = label_images(trace, result.centroids, result.counts, progress)
    sizes = torch.bincount(labels.reshape(-1), minlength=num_clusters)
    centroids = torch.from_numpy(np.ascontiguousarray(result.centroids))
    return Features(
        provenance=trace.provenance.child(
            {
                "num_clusters": num_clusters,
                "sample_tokens": sample_tokens,
                "seed": seed,
                "holdout": holdout,
                **({} if start_seed is None else {"start_seed": start_seed}),
            },
            trace=trace.identity,
        ),
        trace_file=trace_file or str(trace.path or ""),
        num_clusters=num_clusters,
        labels=labels,
        centroids=centroids,
        cluster_sizes=sizes,
        cluster_activation_rates=centroids.mean(1),
        inertia=float(result.inertia),
        distinct_points=int(result.distinct_points),
        discovery=[int(i) for i in discovery],
        heldout=[int(i) for i in heldout],
    ).identify()


def check_options(num_clusters: int, sample_tokens: int, holdout: float, rows: int) -> None:
    """Refuse options that are out of range for so many rows (tokens)."""
    if num_clusters < 1:
        raise UsageError(f"--num-clusters {num_clusters} is not a positive number")
    if num_clusters > rows:
        raise UsageError(f"--num-clusters {num_clusters} is more than the trace's {rows} tokens")
    if sample_tokens < 0:
        raise UsageError(f"--sample-tokens {sample_tokens} is negative; 0 takes all tokens")
    if 0 < sample_tokens < num_clusters:
        raise UsageError(
            f"--sample-tokens {sample_tokens} is less than --num-clusters {num_clusters}"
        )
    if not 0.0 <= holdout < 1.0:
        raise UsageError(f"--holdout {holdout} is not a share in [0, 1)")


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
