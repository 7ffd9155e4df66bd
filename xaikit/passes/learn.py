"""The pass that learns clusters: gates of a sample of tokens, clustered pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.errors import XaikitError
from xaikit.passes.feed import Feed, LayerPair, Visitor, chunks
from xaikit.passes.visitors import GateSample
from xaikit.progress import Progress, silent
from xaikit.statistics.guided import GuidedMap
from xaikit.statistics.kmeans import kmeans
from xaikit.statistics.labelling import Labeller
from xaikit.statistics.sampling import sample_plan

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64, Shaped
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.passes.plan import PlannedBlock
    from xaikit.statistics.prefix import PrefixClusters

_CHUNK = 32

Label = Callable[["Tensor"], "Tensor"]
"""Labels ``[image, token]`` int64 of gates ``[image, token, ffn]``."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Clusters of one pair's gates.

    Attributes
    ----------
    centroids : Float[Tensor, "cluster ffn"]
    counts : Int[Tensor, "cluster"]
        Sample rows of each.
    inertia : float
    distinct_points : int
    prefix : Int[Tensor, "prefix"]
        Clusters of the prefix tokens that are labelled by position.
    guided : GuidedMap, optional
        What labels the other tokens, where the nearest centroid does not.
    """

    centroids: Tensor
    counts: Tensor
    inertia: float
    distinct_points: int
    prefix: Tensor
    guided: GuidedMap | None = None

    def labeller(self, device: torch.device | str = "cpu") -> Label:
        """What says which cluster a token is in."""
        if self.guided is not None:
            return _behind(self.prefix, self.guided.label)
        patches = self.counts.clone()
        patches[self.prefix] = 0
        return _behind(self.prefix, Labeller(self.centroids.numpy(), patches.numpy(), device))

    def tensors(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        guided = {} if self.guided is None else vars(self.guided)
        return {
            **guided,
            "prefix": self.prefix,
            "centroids": self.centroids,
            "counts": self.counts,
            "inertia": torch.tensor(self.inertia, dtype=torch.float64),
            "distinct": torch.tensor(self.distinct_points),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Clusters:
        """What `tensors` gave."""
        parts = ("projection", "offset", "leaf_means")
        found = {name: tensors[name] for name in parts if name in tensors}
        return cls(
            prefix=tensors["prefix"],
            guided=GuidedMap(**found) if found else None,
            centroids=tensors["centroids"],
            counts=tensors["counts"],
            inertia=float(tensors["inertia"]),
            distinct_points=int(tensors["distinct"]),
        )


def _behind(prefix: Tensor, label: Label) -> Label:
    """Labels by position for the first tokens of ``[image, token, ffn]``, and `label` after."""
    if not len(prefix):
        return label

    def whole(gates: Tensor) -> Tensor:
        found = label(gates[:, len(prefix) :])
        return torch.cat([prefix.to(found.device).expand(len(gates), -1), found], dim=1)

    return whole


@dataclass(frozen=True)
class SamplePlan:
    """Tokens of each candidate to learn from."""

    rows: dict[int, np.ndarray]

    @classmethod
    def make(
        cls, discovery: Sequence[int], tokens: int, count: int, seed: int, prefix: int = 0
    ) -> SamplePlan:
        """See `xaikit.statistics.sampling.sample_plan`; the first tokens come with each image.

        Parameters
        ----------
        tokens : int
            Of an image.
        count : int
            Tokens to choose beside the first `prefix` of each image that is chosen.
        """
        first = np.arange(prefix)
        plan = sample_plan(list(discovery), tokens - prefix, count, seed)
        return cls({image: np.concatenate([first, rows + prefix]) for image, rows in plan})

    def blocks(self) -> list[PlannedBlock]:
        """Blocks that hold the sampled images alone."""
        images = np.array([image for image, rows in self.rows.items() if len(rows)], dtype=int)
        return chunks(np.sort(images), _CHUNK)


def learn_clusters(
    feed: Feed,
    pairs: Sequence[LayerPair],
    plan: SamplePlan,
    shared: PrefixClusters,
    seed: int,
    *,
    blocks: Sequence[PlannedBlock] | None = None,
    beside: Mapping[LayerPair, Sequence[Visitor]] | None = None,
    name: str = "",
    progress: Progress = silent,
) -> dict[LayerPair, Clusters]:
    """Sample the gates of every pair in one pass, and cluster them; on every process.

    Parameters
    ----------
    plan : SamplePlan
        Holds the prefix tokens of every sampled image where those have clusters of their own.
    shared : PrefixClusters
    blocks : sequence of PlannedBlock, optional
        What to read; by default the sampled images alone.
    beside : mapping of LayerPair to sequence of Visitor, optional
        To be shown the same blocks.
    """
    samples = {pair: GateSample(plan.rows, feed.info(pair).ffn_width) for pair in pairs}
    visitors = {pair: [samples[pair], *(beside or {}).get(pair, ())] for pair in pairs}
    feed.visit(
        plan.blocks() if blocks is None else blocks,
        visitors,
        name=name,
        what="images sampled",
        progress=progress,
    )
    for sample in samples.values():
        sample.reduce(feed.world)

    def learnt(pair: LayerPair) -> Clusters | None:
        gates, tokens = samples[pair].sample, samples[pair].tokens
        return _clustered(gates, tokens, shared, seed, progress) if len(gates) else None

    return {pair: agreed(feed.world, learnt, pair) for pair in pairs}


def agreed(
    world: World, learn: Callable[[LayerPair], Clusters | None], pair: LayerPair
) -> Clusters:
    """What the first process learns, on every process.

    Raises
    ------
    XaikitError
        On all of them, where there is nothing to learn from.
    """
    found: dict[str, Tensor] | None = None
    if world.leads:
        made = learn(pair)
        found = {} if made is None else made.tensors()
    known = world.broadcast(found)
    if not known:
        raise XaikitError("none of the images that clusters are learnt on can be used")
    return Clusters.of(known)


def _clustered(
    gates: np.ndarray, tokens: np.ndarray, shared: PrefixClusters, seed: int, progress: Progress
) -> Clusters:
    patches = tokens >= shared.tokens
    result = kmeans(gates[patches], shared.patch_clusters, seed=seed, progress=progress)
    images = int((~patches).sum()) // max(shared.tokens, 1)
    first = torch.from_numpy(gates[~patches].reshape(images, shared.tokens, gates.shape[1]))
    means, counts = prefix_means(shared, first)
    return Clusters(
        centroids=torch.cat([torch.from_numpy(np.ascontiguousarray(result.centroids)), means]),
        counts=torch.cat([torch.from_numpy(result.counts), counts]),
        inertia=float(result.inertia),
        distinct_points=int(result.distinct_points),
        prefix=shared.labels,
    )


def prefix_means(
    shared: PrefixClusters, gates: Shaped[Tensor, "image prefix ffn"]
) -> tuple[Float32[Tensor, "kind ffn"], Int64[Tensor, " kind"]]:
    """Mean gates of each kind of prefix token, and how many tokens they are of."""
    kind = shared.labels - shared.patch_clusters
    counts = torch.bincount(kind, minlength=len(shared.kinds)) * len(gates)
    sums = torch.zeros(len(shared.kinds), gates.shape[2], dtype=torch.float64)
    sums.index_add_(0, kind, gates.sum(0, dtype=torch.float64))
    return (sums / counts.clamp(min=1)[:, None]).float(), counts
