"""A tower, the images that are run through it, and the layers whose attention is edited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.options import all_at_zero, checked, option
from xaikit.errors import UsageError, XaikitError
from xaikit.images import iter_batches
from xaikit.interventions.covers import EdgeSet, Shape
from xaikit.interventions.edits import ABLATIONS, OF_PARTNERS, ablate, derangement
from xaikit.interventions.matching import check_parts, check_tower, find_images
from xaikit.interventions.metrics import Classifier, changes, metric_names
from xaikit.interventions.objectives import Objective, objective_for
from xaikit.interventions.sites import Site, SitePart
from xaikit.progress import Progress, silent
from xaikit.towers import AttentionCall, BlockCache, Edit, Outputs, Tower, require_finite_call

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.images import ImageSource

Edits = Mapping[int, Edit]
"""Edits of one forward pass, by the layer of the attention."""

PARTNER_BYTES = 512 * 2**20
"""Most that the partners' logits of one batch may take."""


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How the model is run on edited attention.

    Attributes
    ----------
    ablation : str
        ``mean``, ``resample``, ``zero``, ``knockout`` or ``pair`` (see `ablate`).
    objective : str
        What effects are measured on: ``embedding`` or ``margin`` (see `Objective`).
    toward, against : str, optional
        A direction in place of those: prompts, or classes of the model's head.
    ig_steps : int
        Points on the way from the clean to the ablated logits that gradients are averaged over.
    score_images : int, optional
        At most so many discovery images to score rankings on that run the model.
    batch_size, seed : int
    workers : int, optional
        Threads that decode.
    """

    ablation: str = option("mean", "What takes the place of a logit.", choices=ABLATIONS)
    objective: str = option(
        "embedding",
        "What effects are measured on and edges ranked by.",
        choices=("embedding", "margin"),
    )
    toward: str | None = option(
        None,
        "Measure on a direction instead: a prompt, or a class of the model's head (name or index).",
        metavar="TEXT",
    )
    against: str | None = option(
        None, "What --toward is told apart from; also a prompt or a class.", metavar="TEXT"
    )
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


def chosen_objective(
    tower: Tower, options: LiveOptions, classifier: Classifier | None
) -> Objective:
    """The objective that options name."""
    return objective_for(
        options.objective,
        tower,
        classifier,
        toward=options.toward,
        against=options.against,
    )


class _ReachedError(Exception):
    """The last attention call that is wanted has been made."""


@dataclass(frozen=True, kw_only=True)
class LiveBatch:
    """Some images, run up to the lowest edited layer.

    Attributes
    ----------
    live : Live
    images : list of int
        Rows of the features' labels.
    sites : list of SitePart
        The edited layers, with these images' clusters.
    cache : BlockCache
        Filled with these images.
    partner_pixels : Float[Tensor, "image 3 height width"], optional
        Images whose logits are taken in place of these images'.
    """

    live: Live
    images: list[int]
    sites: list[SitePart]
    cache: BlockCache
    partner_pixels: Float[Tensor, "image 3 height width"] | None = None

    @cached_property
    def clean(self) -> Outputs:
        """Outputs of the untouched model.

        Raises
        ------
        XaikitError
            Where they are not finite; it names the image, and the layer and head of a logit.
        """
        with torch.no_grad():
            found = self.cache.outputs()
        self.require_finite(found.embedding[None], "the embedding of image {}")
        return found

    def require_finite(self, found: Float[Tensor, "edit image *rest"], what: str) -> None:
        """Refuse what is not finite, by the logits that it comes from if any is not.

        Parameters
        ----------
        found : Tensor
        what : str
            In words, with ``{}`` for the image.
        """
        if bool(torch.isfinite(found).all()):
            return
        for part, call in zip(self.sites, self.calls, strict=True):
            require_finite_call(call, part.layer, self.name)
        row = int(torch.nonzero(~torch.isfinite(found))[0, 1])
        raise XaikitError(
            f"{what.format(self.name(row))} is not finite: check the weights, or pass "
            "`precision=float32`"
        )

    def name(self, row: int) -> str:
        """Id of an image of the batch."""
        return self.live.ids[self.images[row]]

    def effect(self, edited: Outputs) -> Float[Tensor, "image"]:
        """What an edit does to the objective, image by image."""
        return self.live.objective.effect(self.clean, edited, self.images)

    @cached_property
    def calls(self) -> list[AttentionCall]:
        """The edited layers' attention calls on these images, untouched."""
        return attention_calls(self.cache, [part.layer for part in self.sites])

    @cached_property
    def partner_logits(self) -> list[Float[Tensor, "image head token token"]]:
        """Clean logits of each image's partner, a tensor a site."""
        assert self.partner_pixels is not None
        cache = BlockCache(self.cache.tower, self.cache.layer).fill(self.partner_pixels)
        return [call.logits() for call in attention_calls(cache, [p.layer for p in self.sites])]

    def ablation(self, edges: EdgeSet, *, keep: bool = False) -> Edits:
        """The run's ablation of a set of edges, or with `keep` of all others, in all layers."""
        return {
            part.layer: self._ablate(site, part, edges, keep)
            for site, part in enumerate(self.sites)
            if edges.touches(site, keep=keep)
        }

    def _ablate(self, site: int, part: SitePart, edges: EdgeSet, keep: bool) -> Edit:
        def mask() -> Tensor:
            found = edges.mask(site, part.labels, part.jitter, part.site.destination)
            return ~found if keep else found

        partners = None
        if self.live.options.ablation in OF_PARTNERS:
            partners = self.partner_logits[site]
        return ablate(
            mask,
            self.live.options.ablation,
            position_mean=part.position_mean,
            partners=partners,
        )


def attention_calls(cache: BlockCache, layers: Sequence[int]) -> list[AttentionCall]:
    """The untouched attention calls of some layers; nothing after the last one runs."""
    found: dict[int, AttentionCall] = {}

    def reader(layer: int) -> Edit:
        def read(call: AttentionCall, logits: Tensor) -> Tensor:
            found[layer] = call
            if len(found) == len(layers):
                raise _ReachedError
            return logits

        return read

    with torch.no_grad():
        try:
            cache.outputs({layer: reader(layer) for layer in layers})
        except _ReachedError:
            return [found[layer] for layer in layers]
    raise AssertionError("an edited layer made no attention call")


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
        self._partners = self._partner_positions([ids[image] for image in self.images], pairs)
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

    def _partner_positions(
        self, names: Sequence[str], pairs: Mapping[str, str] | None
    ) -> list[int]:
        """Where each image's partner is in the source."""
        ablation = self.options.ablation
        if ablation == "resample":
            drawn = derangement(len(names), [self.options.seed, 12])
            return [self._positions[int(place)] for place in drawn]
        if ablation != "pair":
            return []
        places = {name: place for place, name in enumerate(self.source.ids)}
        missing = [name for name in names if name not in (pairs or {})]
        if missing:
            raise UsageError(
                f"`ablation=pair`: {len(missing)} of {len(names)} images have no partner, the "
                f"first is {missing[0]}: pass `pairs=FILE` with two ids or paths a line"
            )
        wanted = [(pairs or {})[name] for name in names]
        unknown = [name for name in wanted if name not in places]
        if unknown:
            raise UsageError(
                f"`pairs=`: {unknown[0]} is not among the given images ({len(unknown)} of "
                f"{len(wanted)} partners are not): pass the folder that holds both"
            )
        return [places[name] for name in wanted]

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
