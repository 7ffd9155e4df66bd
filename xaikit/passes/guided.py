"""The passes that learn guided clusters: what gates predict of the next layer's attention.

The first pass over the learning images adds up moments of gates, queries and keys, and the mean
logits; the second takes how far each token's attention is from that mean. Gates of the learning
tokens are kept, a bit each, so that the tree needs no third pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.errors import XaikitError
from xaikit.passes.feed import Feed, LayerPair
from xaikit.passes.feed import chunks as blocks_of
from xaikit.passes.guided_visitors import MomentSums, PatternStrengths
from xaikit.passes.learn import Clusters, agreed, prefix_means
from xaikit.passes.sums import shared_means
from xaikit.passes.visitors import GateSample, PositionMean
from xaikit.progress import Progress, silent
from xaikit.statistics.guided import GuidedTree, LearningRows, guided_tree
from xaikit.statistics.guided_sums import GuidedSums

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.passes.plan import PlannedBlock
    from xaikit.statistics.prefix import PrefixClusters

LEARNING_IMAGES = 2048
"""At most so many discovery images are learnt from, evenly spread over them."""
_CHUNK = 32

Measure = Callable[
    [Mapping[LayerPair, "Tensor"], Sequence[int], "PrefixClusters"],
    Mapping[LayerPair, Mapping[int, "Float[Tensor, 'patch strength']"]],
]
"""``measure(means, images, shared)``: how much each token's attention matters, by image, of the
images that this process was given to read."""


def learning_images(discovery: Sequence[int]) -> list[int]:
    """The discovery images that guided clusters are learnt on; no seed enters."""
    every = sorted(int(image) for image in discovery)
    if len(every) <= LEARNING_IMAGES:
        return every
    places = np.linspace(0, len(every) - 1, LEARNING_IMAGES).round().astype(int)
    return [every[at] for at in places]


@dataclass(frozen=True, kw_only=True)
class GuidedMaterial:
    """What guided clusters of one pair are made of, whatever their number.

    Attributes
    ----------
    sample : GateSample
        Gates of the learning images' tokens.
    sums : GuidedSums
    strengths : Float[Tensor, "row strength"]
    prefix : int
        First tokens of each image that are not learnt from.
    """

    sample: GateSample
    sums: GuidedSums
    strengths: Tensor
    prefix: int

    @cached_property
    def _packed(self) -> Tensor:
        images = round(float(self.sums.totals["images"]))
        packed = torch.from_numpy(self.sample.packed())
        return packed.reshape(images, -1, packed.shape[1])

    @cached_property
    def _rows(self) -> LearningRows:
        """The learning tokens, image after image."""
        patches = self._packed[:, self.prefix :].flatten(0, 1)
        return LearningRows(packed=patches, width=self.sample.width, strengths=self.strengths)

    @cached_property
    def _tree(self) -> GuidedTree:
        return guided_tree(self.sums.moments(), self._rows)

    def clusters(self, shared: PrefixClusters) -> Clusters:
        """Grow the tree to the number of clusters that `shared` leaves for the patches."""
        rows, found = self._rows, self._tree.cut(shared.patch_clusters)
        totals = torch.zeros(shared.patch_clusters, rows.width, dtype=torch.float64)
        counts = torch.zeros(shared.patch_clusters, dtype=torch.int64)
        for _, gates in rows.chunks():
            labels = found.label(gates)
            totals.index_add_(0, labels, gates.double())
            counts += torch.bincount(labels, minlength=len(counts))
        means = totals / counts.clamp(min=1)[:, None]
        first = np.unpackbits(
            self._packed[:, : shared.tokens].flatten(0, 1).numpy(), axis=1, count=rows.width
        )
        shape = (len(self._packed), shared.tokens, rows.width)
        own, own_counts = prefix_means(shared, torch.from_numpy(first.reshape(shape)))
        return Clusters(
            centroids=torch.cat([means.float(), own]),
            counts=torch.cat([counts, own_counts]),
            # Mean squared distance of zeros and ones to their cluster's mean p: Σ p (1 − p).
            inertia=float(((means * (1.0 - means)).sum(1) * counts).sum() / counts.sum()),
            distinct_points=len(found.leaf_means),
            prefix=shared.labels,
            guided=found,
        )


def learn_guided_clusters(
    feed: Feed,
    pairs: Sequence[LayerPair],
    discovery: Sequence[int],
    shared: PrefixClusters,
    **options: Any,
) -> tuple[dict[LayerPair, Clusters], dict[LayerPair, Tensor]]:
    """Learn the guided clusters of every pair, in two passes; on every process.

    Parameters
    ----------
    feed, pairs, discovery, shared, **options
        As in `guided_material`.

    Returns
    -------
    clusters : dict of LayerPair to Clusters
    means : dict of LayerPair to Tensor
        Mean logits of the discovery images ``[head, token, token]``.
    """
    material, means = guided_material(feed, pairs, discovery, shared, **options)

    def learnt(pair: LayerPair) -> Clusters | None:
        own = material[pair]
        return None if own is None else own.clusters(shared)

    return {pair: agreed(feed.world, learnt, pair) for pair in pairs}, means


def guided_material(
    feed: Feed,
    pairs: Sequence[LayerPair],
    discovery: Sequence[int],
    shared: PrefixClusters,
    *,
    blocks: Sequence[PlannedBlock] | None = None,
    measure: Measure | None = None,
    device: torch.device | str = "cpu",
    name: str = "",
    progress: Progress = silent,
) -> tuple[dict[LayerPair, GuidedMaterial | None], dict[LayerPair, Tensor]]:
    """What guided clusters are made of, and mean logits; complete on the first process.

    Parameters
    ----------
    discovery : sequence of int
        Candidates that may be learnt from.
    shared : PrefixClusters
        Prefix tokens with clusters of their own are not learnt from.
    blocks : sequence of PlannedBlock, optional
        The discovery images, as the mean is to be taken over them.
    measure : callable, optional
        In place of the second pass, which looks at the patterns: asks the model.
    """
    images = learning_images(discovery)
    infos = {pair: feed.info(pair) for pair in pairs}
    rows = {
        pair: GateSample(dict.fromkeys(images, np.arange(info.tokens)), info.ffn_width)
        for pair, info in infos.items()
    }
    sums = {pair: MomentSums(images, shared, device) for pair in pairs}
    means = {pair: PositionMean(info.heads, info.tokens, device) for pair, info in infos.items()}
    every = blocks_of(np.sort(np.asarray(discovery)), _CHUNK) if blocks is None else blocks
    shown = {pair: [rows[pair], sums[pair], means[pair]] for pair in pairs}
    feed.visit(every, shown, name=name, what="images learnt from", progress=progress)
    found = shared_means(means, feed.world)
    if measure is None:
        measure = functools.partial(_patterns, feed, progress)
    strengths = measure(found, images, shared)
    for pair in pairs:
        rows[pair].reduce(feed.world)
        sums[pair].reduce(feed.world)
    everyone = {pair: _gathered(strengths[pair], feed.world) for pair in pairs}
    return {
        pair: _material(pair, rows[pair], sums[pair], everyone[pair], shared.tokens)
        for pair in pairs
    }, found


def _material(
    pair: LayerPair, sample: GateSample, sums: MomentSums, strengths: Tensor, prefix: int
) -> GuidedMaterial | None:
    if sums.sums is None:
        return None
    if not all(bool(torch.isfinite(total).all()) for total in sums.sums.totals.values()):
        raise XaikitError(
            f"queries or keys of layer {pair[1]} are not finite in half precision; "
            "use `method=kmeans`"
        )
    return GuidedMaterial(sample=sample, sums=sums.sums, strengths=strengths, prefix=prefix)


def _patterns(
    feed: Feed,
    progress: Progress,
    means: Mapping[LayerPair, Tensor],
    images: Sequence[int],
    shared: PrefixClusters,
) -> dict[LayerPair, dict[int, Tensor]]:
    found = {pair: PatternStrengths(mean, shared) for pair, mean in means.items()}
    feed.visit(
        blocks_of(np.array(images), _CHUNK),
        {pair: [visitor] for pair, visitor in found.items()},
        what="images looked at again",
        progress=progress,
    )
    return {pair: visitor.found for pair, visitor in found.items()}


def _gathered(own: Mapping[int, Tensor], world: World) -> Tensor:
    """All processes' strengths in the order of images, on the first one."""
    images = sorted(own)
    part = {"images": torch.tensor(images, dtype=torch.int64)}
    if images:
        part["strengths"] = torch.stack([own[image] for image in images])
    parts = [each for each in world.gather(part) if len(each["images"])]
    if not parts:
        return torch.zeros(0)
    order = torch.cat([each["images"] for each in parts]).argsort()
    return torch.cat([each["strengths"] for each in parts])[order].flatten(0, 1)
