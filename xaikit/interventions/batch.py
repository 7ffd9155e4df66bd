"""Some images in the middle of the model: run up to the edited layers, and what an edit does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from xaikit.errors import XaikitError
from xaikit.interventions.covers import EdgeSet
from xaikit.interventions.edits import OF_PARTNERS, ablate
from xaikit.interventions.sites import SitePart
from xaikit.towers import AttentionCall, BlockCache, Edit, Outputs, require_finite_call

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.interventions.live import Live

Edits = Mapping[int, Edit]
"""Edits of one forward pass, by the layer of the attention."""


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
