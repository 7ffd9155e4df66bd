"""A tower, the images that are run through it, and what their tokens' clusters are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.artifacts.options import all_at_zero, option
from xaikit.errors import UsageError
from xaikit.images import iter_batches
from xaikit.interventions.covers import entry_counts
from xaikit.interventions.edits import ABLATIONS, ablate, check_ablation, derangement
from xaikit.interventions.matching import check_tower, even_batches, find_images
from xaikit.interventions.metrics import Classifier, changes, metric_names
from xaikit.progress import Progress, silent
from xaikit.towers import AttentionCall, BlockCache, Edit, Outputs, Tower

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.images import ImageSource


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How the model is run on edited attention.

    Attributes
    ----------
    ablation : str
        ``mean``, ``resample``, ``zero`` or ``knockout`` (see `ablate`).
    ig_steps : int
        Points on the way from the clean to the ablated logits that gradients are averaged over.
    score_images : int, optional
        At most so many discovery images to score rankings on that run the model.
    batch_size, seed : int
    workers : int, optional
        Threads that decode.
    """

    ablation: str = option("mean", "What takes the place of a logit.", choices=ABLATIONS)
    ig_steps: int = option(5, "Points that attribution averages the gradient over.", least=1)
    score_images: int | None = option(
        256,
        "Discovery images to score rankings on that run the model, spread evenly; 0 = all.",
        panel="Images",
        least=1,
        parse=all_at_zero,
        metavar="<int>",
    )
    batch_size: int = option(32, "Images a forward pass.", panel="Running", least=1, idle=True)
    seed: int = option(0, "Of everything random.", panel="Running", least=0)
    workers: int | None = option(
        None, "Threads that decode images.", panel="Running", least=1, idle=True
    )


class _ReachedError(Exception):
    """The attention call that is wanted has been made."""


@dataclass(frozen=True, kw_only=True)
class LiveBatch:
    """Some images, run up to the edited layer.

    Attributes
    ----------
    live : Live
    images : list of int
        Rows of the features' labels.
    labels : Int[Tensor, "image token"]
    cache : BlockCache
        Filled with these images.
    jitter : Float[Tensor, "image 1 token 1"]
        A fixed number in [0, 1) for every row (see `Order`).
    partners : Int[Tensor, "image"], optional
        Where ``resample`` takes logits from.
    """

    live: Live
    images: list[int]
    labels: Int[Tensor, "image token"]
    cache: BlockCache
    jitter: Float[Tensor, "image 1 token 1"]
    partners: Int[Tensor, "image"] | None

    @cached_property
    def clean(self) -> Outputs:
        """Outputs of the untouched model."""
        return self.cache.outputs()

    def call(self) -> AttentionCall:
        """The edited layer's attention call on these images; nothing after it runs."""
        found: list[AttentionCall] = []

        def stop(call: AttentionCall, _logits: Tensor) -> Tensor:
            found.append(call)
            raise _ReachedError

        with contextlib.suppress(_ReachedError), torch.no_grad():
            self.cache.outputs(stop)
        return found[0]

    def ablation(self, mask: Bool[Tensor, "image head token token"]) -> Edit:
        """The run's ablation of some entries."""
        return ablate(
            mask,
            self.live.ablation,
            position_mean=self.live.position_mean,
            partners=self.partners,
        )


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Edits that are tried on every batch.

    Attributes
    ----------
    size : int
        How many there are.
    edits : callable
        ``edits(batch)`` yields them in the same order for every batch.
    """

    size: int
    edits: Callable[[LiveBatch], Iterable[Edit]]


class Live:
    """Everything that an intervention on some images needs.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
        Holds the images by id.
    features : Features
    fit : Fit
    ids : sequence of str
        Id of every row of ``features.labels``.
    images : sequence of int
        Rows to run.
    batch_size : int
    ablation : str
        See `ablate`.
    classifier : Classifier, optional
        For the metrics on classes.
    ig_steps : int
        Points on the way from the clean to the ablated logits that gradients are averaged over.
    workers : int, optional
        Threads that decode.
    seed : int
    progress : Progress
        For rankings that run the model.

    Raises
    ------
    UsageError
        Where tower, images and artefacts do not belong together.
    """

    def __init__(
        self,
        tower: Tower,
        source: ImageSource,
        features: Features,
        fit: Fit,
        *,
        ids: Sequence[str],
        images: Sequence[int],
        batch_size: int = 32,
        ablation: str = "mean",
        classifier: Classifier | None = None,
        ig_steps: int = 5,
        workers: int | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        check_ablation(ablation)
        if ig_steps < 1:
            raise UsageError(f"--ig-steps {ig_steps} is not a positive number")
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size} is not a positive number")
        check_tower(tower, fit)
        self.tower, self.source, self.fit = tower, source, fit
        self.features = features
        self.layer = fit.next_layer
        self.destination = fit.destination
        self.clusters = features.num_clusters
        self.images = [int(image) for image in images]
        self.ablation, self.classifier = ablation, classifier
        self.ig_steps, self.progress = ig_steps, progress
        self.workers, self.seed = workers, seed
        self.batch_size = even_batches(len(self.images), batch_size, ablation)
        self.position_mean: Float[Tensor, "head token token"] = fit.position_mean.to(tower.device)
        self._positions = find_images(source, ids, self.images, len(features.labels))

    @property
    def labels(self) -> Int[Tensor, "image token"]:
        """Clusters of the images that are run."""
        return self.features.labels[torch.as_tensor(self.images)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Clusters, heads and destinations: the shape of a table of edges."""
        clusters, heads, width = self.fit.prototypes.shape
        return clusters, heads, width

    @cached_property
    def counts(self) -> Float[Tensor, "cluster destination"]:
        """Entries of one head that each edge covers on the images that are run."""
        return entry_counts(self.labels, self.clusters, self.destination)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return metric_names(self.classifier)

    def batches(self, progress: Progress = silent, what: str = "images") -> Iterator[LiveBatch]:
        """Run the blocks before the edited layer, once for each batch of images.

        Raises
        ------
        XaikitError
            If an image of the trace can no longer be read.
        """
        done = 0
        found = iter_batches(
            self.source,
            self.tower.preprocess,
            batch_size=self.batch_size,
            indices=self._positions,
            workers=self.workers,
            strict=True,
        )
        for number, batch in enumerate(found):
            yield self._batch(number, slice(done, done + len(batch)), batch.pixels)
            done += len(batch)
            progress(what, done, len(self.images))

    @cached_property
    def jitter(self) -> Float[Tensor, "image token"]:
        """A fixed number in [0, 1) for every row, evenly spread over the rows of each cluster."""
        labels = self.labels.reshape(-1).numpy()
        drawn = np.random.default_rng([self.seed, 11]).random(labels.size)
        order = np.lexsort((drawn, labels))
        sizes = np.bincount(labels, minlength=self.clusters)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        spaced = np.empty(labels.size, dtype=np.float32)
        ordered = labels[order]
        spaced[order] = (np.arange(labels.size) - starts[ordered] + 0.5) / sizes[ordered]
        return torch.from_numpy(spaced).reshape(self.labels.shape)

    def _batch(self, number: int, part: slice, pixels: Tensor) -> LiveBatch:
        device = self.tower.device
        images = self.images[part]
        partners = None
        if self.ablation == "resample":
            partners = derangement(len(images), [self.seed, 12, number]).to(device)
        return LiveBatch(
            live=self,
            images=images,
            labels=self.features.labels[torch.as_tensor(images)].to(device),
            cache=BlockCache(self.tower, self.layer).fill(pixels),
            jitter=self.jitter[part, None, :, None].to(device),
            partners=partners,
        )

    def measure(
        self, patches: Sequence[Patch], progress: Progress = silent, what: str = "edits"
    ) -> list[dict[str, Float[Tensor, "edit image"]]]:
        """Run every edit of every patch on every image, in one pass over the images.

        Returns
        -------
        list of dict
            For each patch, by metric, the change that each edit makes to each image, float64.
        """
        total = len(self.images) * sum(patch.size for patch in patches)
        parts: list[dict[str, list[Tensor]]] = [{m: [] for m in self.metrics} for _ in patches]
        done = 0
        for batch in self.batches():
            with torch.no_grad():
                for patch, part in zip(patches, parts, strict=True):
                    rows = []
                    for edit in patch.edits(batch):
                        edited = batch.cache.outputs(edit)
                        rows.append(changes(batch.clean, edited, self.classifier, batch.images))
                        done += len(batch.images)
                        progress(what, done, total)
                    for metric, columns in part.items():
                        if rows:
                            columns.append(torch.stack([row[metric].cpu() for row in rows]))
        return [
            {metric: _columns(columns, len(self.images)) for metric, columns in part.items()}
            for part in parts
        ]


def _columns(parts: list[Tensor], images: int) -> Tensor:
    return torch.cat(parts, dim=1) if parts else torch.empty(0, images, dtype=torch.float64)
