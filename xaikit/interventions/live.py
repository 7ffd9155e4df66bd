"""A tower, the images that are run through it, and the layers whose attention is edited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.options import checked
from xaikit.errors import UsageError
from xaikit.images import iter_batches
from xaikit.interventions.batch import Edits, LiveBatch
from xaikit.interventions.covers import Shape
from xaikit.interventions.edits import derangement
from xaikit.interventions.live_options import LiveOptions, chosen_objective
from xaikit.interventions.matching import check_parts, check_tower, find_images, find_partners
from xaikit.interventions.metrics import Classifier, changes, metric_names
from xaikit.interventions.objectives import Objective
from xaikit.interventions.sites import Site
from xaikit.progress import Progress, silent
from xaikit.towers import BlockCache, Outputs, Tower

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.images import ImageSource

PARTNER_BYTES = 512 * 2**20
"""Most that the partners' logits of one batch may take."""


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
    edits: Callable[[LiveBatch], Iterable[Edits]]


class Live:
    """Everything that an intervention on some images needs.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
        Holds the images by id.
    parts : sequence of (Features, Fit)
        The layers that are edited together, of the same images.
    ids : sequence of str
        Id of every row of ``features.labels``.
    images : sequence of int
        Rows to run.
    options : LiveOptions, optional
    classifier : Classifier, optional
        For the metrics on classes.
    objective : Objective, optional
        What rankings that run the model score effects on; by default what the options say.
    pairs : mapping of str to str, optional
        For ``pair``: the id of each image's partner.
    progress : Progress
        For rankings that run the model.

    Attributes
    ----------
    ids : sequence of str
    sites : list of Site
        The edited layers, lowest first.
    partners : list of str
        Id of the image that each image's logits are taken from; empty where none is needed.

    Raises
    ------
    UsageError
        Where tower, images and artefacts do not belong together.
    """

    def __init__(
        self,
        tower: Tower,
        source: ImageSource,
        parts: Sequence[tuple[Features, Fit]],
        *,
        ids: Sequence[str],
        images: Sequence[int],
        options: LiveOptions | None = None,
        classifier: Classifier | None = None,
        objective: Objective | None = None,
        pairs: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> None:
        self.options = o = checked(options or LiveOptions())
        if not images:
            raise UsageError("no images to intervene on")
        check_parts(parts)
        check_tower(tower, parts[0][1])
        self.tower, self.source, self.progress = tower, source, progress
        self.classifier = classifier
        self.objective = objective or chosen_objective(tower, o, classifier)
        self.ids = ids
        self.images = [int(image) for image in images]
        ordered = sorted(parts, key=lambda part: part[1].next_layer)
        self.sites = [Site(*part, self.images, o.seed) for part in ordered]
        self._positions = find_images(source, ids, self.images, len(parts[0][0].labels))
        self._partners = self._find_partners(pairs)
        self.partners = [source.ids[place] for place in self._partners]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Clusters, heads and destinations of each site's table of edges."""
        return tuple(site.shape for site in self.sites)

    @property
    def counts(self) -> tuple[Float[Tensor, "cluster destination"], ...]:
        """Entries of one head that each edge covers on the images that are run, a table a site."""
        return tuple(site.counts for site in self.sites)

    @property
    def support(self) -> tuple[Int[Tensor, "cluster destination"], ...]:
        """Entries of one head behind each edge of the fits."""
        return tuple(site.fit.support for site in self.sites)

    @property
    def destination(self) -> str:
        """What edges end at."""
        return self.sites[0].destination

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(dict.fromkeys((*metric_names(self.classifier), self.objective.metric)))

    def batches(self, progress: Progress = silent, what: str = "images") -> Iterator[LiveBatch]:
        """Run the blocks before the lowest edited layer, once for each batch of images.

        Raises
        ------
        XaikitError
            If an image of the trace can no longer be read.
        """
        done, size, wanted = 0, self.batch_size, self._positions
        stride = 2 if self._partners else 1
        if self._partners:
            pairs = zip(self._positions, self._partners, strict=True)
            wanted = [place for pair in pairs for place in pair]
        found = iter_batches(
            self.source,
            self.tower.preprocess,
            batch_size=size * stride,
            indices=wanted,
            workers=self.options.workers,
            strict=True,
        )
        for batch in found:
            rows = slice(done, done + len(batch) // stride)
            partners = batch.pixels[1::2] if self._partners else None
            yield LiveBatch(
                live=self,
                images=self.images[rows],
                sites=[site.part(rows, self.tower.device) for site in self.sites],
                cache=BlockCache(self.tower, self.sites[0].layer).fill(batch.pixels[::stride]),
                partner_pixels=partners,
            )
            done = rows.stop
            progress(what, done, len(self.images))

    @property
    def batch_size(self) -> int:
        """Images a batch: fewer than asked for where partners' logits would take too much."""
        if not self._partners:
            return self.options.batch_size
        tokens = self.sites[0].labels.shape[1]
        each = sum(4 * site.shape[1] * tokens**2 for site in self.sites)
        return max(1, min(self.options.batch_size, PARTNER_BYTES // each))

    def _find_partners(self, pairs: Mapping[str, str] | None) -> list[int]:
        """Place in the source of each image's partner; empty where the ablation needs none."""
        if self.options.ablation == "resample":
            drawn = derangement(len(self.images), [self.options.seed, 12])
            return [self._positions[int(place)] for place in drawn]
        if self.options.ablation == "pair":
            return find_partners(self.source, [self.ids[image] for image in self.images], pairs)
        return []

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
                        rows.append(self._changes(batch, batch.cache.outputs(edit)))
                        done += len(batch.images)
                        progress(what, done, total)
                    for metric, columns in part.items():
                        if rows:
                            columns.append(torch.stack([row[metric].cpu() for row in rows]))
                            named = f"the {metric} of an edit of image {{}}"
                            batch.require_finite(columns[-1], named)
        return [
            {metric: _columns(columns, len(self.images)) for metric, columns in part.items()}
            for part in parts
        ]

    def _changes(self, batch: LiveBatch, edited: Outputs) -> dict[str, Tensor]:
        found = changes(batch.clean, edited, self.classifier, batch.images)
        if self.objective.metric not in found:
            found[self.objective.metric] = batch.effect(edited)
        return found


def _columns(parts: list[Tensor], images: int) -> Tensor:
    return torch.cat(parts, dim=1) if parts else torch.empty(0, images, dtype=torch.float64)
