"""`--num-clusters auto`: the fewest clusters within one standard error of the best.

The numbers of a short sweep are compared on discovery images alone: learnt on all folds but one,
scored on that one by the R-squared that they add to position. Held-out images are left for tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.artifacts.options import deciding
from xaikit.artifacts.studies import ClusterSweep
from xaikit.errors import UsageError
from xaikit.interventions import spread_evenly
from xaikit.passes.feed import StoredFeed
from xaikit.passes.guided import guided_material
from xaikit.passes.learn import Clusters, SamplePlan, learn_clusters
from xaikit.passes.plan import split_candidates
from xaikit.progress import Progress, silent
from xaikit.statistics.controls import image_part, label_scores
from xaikit.statistics.prefix import prefix_clusters

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import Trace
    from xaikit.stages.cluster import ClusterOptions

REVISION = 1
"""Raised where the same traces and options give another number than before."""
SWEEP = (4, 8, 16, 32, 64)
FOLDS = 4
IMAGES = 192
"""Discovery images of a sweep, at most."""
TOKENS = 5000
"""Tokens that each k-means of a sweep learns from, at most."""
_CHUNK = 32


def choose_clusters(
    traces: Iterable[Trace],
    options: ClusterOptions,
    destination: str = "token",
    *,
    progress: Progress = silent,
) -> ClusterSweep:
    """Choose one number of clusters for some pairs of layers of the same images.

    Parameters
    ----------
    traces : iterable of Trace
        One a pair; none is kept after it was used.
    options : ClusterOptions
        How clusters are learnt; guided ones without the model. The sweep uses images that these
        options do not hold out.
    destination : str
        What edges end at: ``token`` or ``cluster``.

    Raises
    ------
    UsageError
        Where there are too few images to tell numbers apart.
    """
    sweeps: list[list[list[float]]] = []
    layers: list[list[int]] = []
    for trace in traces:
        sweep = _Sweep(trace, options, destination, discovery_rows(trace, options))
        sweeps.append(sweep.added())
        layers.append([trace.layer, trace.next_layer])
        progress("layers swept", len(sweeps), len(sweeps))
        if len(sweeps) == 1:
            first, numbers, images = trace.provenance, sweep.numbers, len(sweep.images)
    rows, chosen = chosen_row(numbers, sweeps)
    return ClusterSweep(
        provenance=first.child({**deciding(options), "destination": destination}),
        method=options.method,
        prefix=options.prefix,
        destination=destination,
        num_clusters=chosen,
        folds=FOLDS,
        num_images=images,
        layers=layers,
        rows=rows,
    ).identify()


def discovery_rows(trace: Trace, options: ClusterOptions) -> list[int]:
    """The trace's images that a sweep uses."""
    info = trace.info
    parts = split_candidates(*info.candidate_ids(), options.holdout, options.seed)
    there = {int(at): row for row, at in enumerate(info.candidate_positions())}
    images = spread_evenly([there[at] for at in parts["discovery"] if at in there], IMAGES)
    if len(images) < 2 * FOLDS:
        raise UsageError(
            f"`num_clusters=auto` compares numbers on {2 * FOLDS} discovery images or more, there "
            f"are {len(images)}: pass a number"
        )
    return images


def chosen_row(
    numbers: Sequence[int], sweeps: Sequence[Sequence[Sequence[float]]]
) -> tuple[list[dict[str, float]], int]:
    """Means and standard errors over folds, and the fewest within one error of the best.

    Parameters
    ----------
    numbers : sequence of int
        Ascending.
    sweeps : sequence of sequence of sequence of float
        What is added ``[layer][fold][number]``.
    """
    by_fold = np.mean(np.asarray(sweeps, dtype=np.float64), axis=0)
    means = by_fold.mean(0)
    errors = by_fold.std(0, ddof=1) / np.sqrt(len(by_fold))
    best = int(means.argmax())
    chosen = int(np.argmax(means >= means[best] - errors[best]))
    rows = [
        {"num_clusters": number, "r2_added": float(mean), "r2_added_se": float(error)}
        for number, mean, error in zip(numbers, means, errors, strict=True)
    ]
    return rows, numbers[chosen]


@dataclass(frozen=True)
class _Sweep:
    """The sweep of one pair of layers; `images` are rows of the trace."""

    trace: Trace
    options: ClusterOptions
    destination: str
    images: list[int]

    @property
    def numbers(self) -> list[int]:
        """Numbers of clusters that leave some for the patches and have tokens enough."""
        info, o = self.trace.info, self.options
        own = len(prefix_clusters(info.tokens + 1, info.prefix_kinds, o.prefix).kinds)
        most = len(self.images) * info.tokens // 2
        return [number for number in SWEEP if own + 1 < number <= most]

    def added(self) -> list[list[float]]:
        """R-squared added to position ``[fold][number]``."""
        return [self._fold(self.images[fold::FOLDS]) for fold in range(FOLDS)]

    def _fold(self, test: list[int]) -> list[float]:
        train = [image for image in self.images if image not in set(test)]
        blank = torch.zeros(len(self.trace), self.trace.info.tokens, dtype=torch.int64)
        learnt, scored = (image_part(self.trace, blank, each) for each in (train, test))
        labels = self._labels(self._learnt(train), sorted(self.images))
        place = {image: row for row, image in enumerate(sorted(self.images))}
        rows = [torch.tensor([place[image] for image in each]) for each in (train, test)]
        maps = [(found[rows[0]], found[rows[1]]) for found in labels]
        scores = label_scores(learnt, scored, maps, self.numbers, [self.destination])
        return [score["added"] for score in scores[self.destination]]

    def _learnt(self, images: list[int]) -> list[Clusters]:
        info, o = self.trace.info, self.options
        pair, feed = (self.trace.layer, self.trace.next_layer), StoredFeed(self.trace)
        learning = [int(at) for at in info.candidate_positions()[images]]
        shared = [prefix_clusters(k, info.prefix_kinds, o.prefix) for k in self.numbers]
        if o.method == "guided":
            material = guided_material(feed, [pair], learning, shared[0])[0][pair]
            assert material is not None
            return [material.clusters(each) for each in shared]
        tokens = min(o.sample_tokens or TOKENS, TOKENS)
        plan = SamplePlan.make(learning, info.tokens, tokens, o.seed, prefix=shared[0].tokens)
        return [learn_clusters(feed, [pair], plan, each, o.seed)[pair] for each in shared]

    def _labels(self, clusters: list[Clusters], images: list[int]) -> list[Tensor]:
        """Labels of some images under each clustering ``[image, token]``."""
        found: list[list[Tensor]] = [[] for _ in clusters]
        labellers = [each.labeller() for each in clusters]
        for start in range(0, len(images), _CHUNK):
            gates = self.trace.gates_of(np.asarray(images[start : start + _CHUNK]))
            for label, part in zip(labellers, found, strict=True):
                part.append(label(gates).long())
        return [torch.cat(part) for part in found]
