"""The pass that learns clusters: gates of a sample of tokens, clustered pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.errors import XaikitError
from xaikit.passes.feed import Feed, LayerPair, Visitor, chunks
from xaikit.passes.visitors import GateSample
from xaikit.progress import Progress, silent
from xaikit.statistics.kmeans import kmeans
from xaikit.statistics.labelling import Labeller
from xaikit.statistics.sampling import sample_plan

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.passes.plan import PlannedBlock

_CHUNK = 32


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
    """

    centroids: Tensor
    counts: Tensor
    inertia: float
    distinct_points: int

    def labeller(self, device: torch.device | str = "cpu") -> Labeller:
        """What says which cluster a token is in."""
        return Labeller(self.centroids.numpy(), self.counts.numpy(), device)

    def tensors(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        return {
            "centroids": self.centroids,
            "counts": self.counts,
            "inertia": torch.tensor(self.inertia, dtype=torch.float64),
            "distinct": torch.tensor(self.distinct_points),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Clusters:
        """What `tensors` gave."""
        return cls(
            centroids=tensors["centroids"],
            counts=tensors["counts"],
            inertia=float(tensors["inertia"]),
            distinct_points=int(tensors["distinct"]),
        )


@dataclass(frozen=True)
class SamplePlan:
    """Tokens of each candidate to learn from."""

    rows: dict[int, np.ndarray]

    @classmethod
    def make(cls, discovery: Sequence[int], tokens: int, count: int, seed: int) -> SamplePlan:
        """See `xaikit.statistics.sampling.sample_plan`."""
        return cls(dict(sample_plan(list(discovery), tokens, count, seed)))

    def blocks(self) -> list[PlannedBlock]:
        """Blocks that hold the sampled images alone."""
        images = np.array([image for image, rows in self.rows.items() if len(rows)], dtype=int)
        return chunks(np.sort(images), _CHUNK)


def learn_clusters(
    feed: Feed,
    pairs: Sequence[LayerPair],
    plan: SamplePlan,
    clusters: int,
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
    return {pair: _clustered(samples[pair], clusters, seed, feed.world, progress) for pair in pairs}


def _clustered(
    sample: GateSample, clusters: int, seed: int, world: World, progress: Progress
) -> Clusters:
    sample.reduce(world)
    found: dict[str, Tensor] | None = None
    if world.leads:
        gates = sample.sample
        found = {}
        if len(gates):
            result = kmeans(gates, clusters, seed=seed, progress=progress)
            found = Clusters(
                centroids=torch.from_numpy(np.ascontiguousarray(result.centroids)),
                counts=torch.from_numpy(result.counts),
                inertia=float(result.inertia),
                distinct_points=int(result.distinct_points),
            ).tensors()
    # The first process decides for all, also that there is nothing to learn from.
    shared = world.broadcast(found)
    if not shared:
        raise XaikitError("none of the images that clusters are learnt on can be used")
    return Clusters.of(shared)
