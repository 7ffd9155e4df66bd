"""One edited attention layer: the edges that its entries are grouped into."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.interventions.covers import Shape, entry_counts

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit


class Site:
    """A layer's attention, and the clusters of the tokens of the images that are run.

    Parameters
    ----------
    features : Features
    fit : Fit
        Of these features.
    images : sequence of int
        Rows of ``features.labels``.
    seed : int

    Attributes
    ----------
    layer : int
        Layer of the attention; ``features.layer`` is the one whose gates were clustered.
    clusters : int
    destination : str
        ``token`` or ``cluster``.
    labels : Int[Tensor, "image token"]
        Clusters of the images that are run.
    """

    def __init__(self, features: Features, fit: Fit, images: Sequence[int], seed: int) -> None:
        self.features, self.fit = features, fit
        self.layer = fit.next_layer
        self.clusters = features.num_clusters
        self.destination = fit.destination
        self.labels: Int[Tensor, "image token"] = features.labels[torch.as_tensor(images)]
        self._seed = seed

    @property
    def shape(self) -> Shape:
        """Clusters, heads and destinations: the shape of a table of edges."""
        clusters, heads, width = self.fit.prototypes.shape
        return clusters, heads, width

    @cached_property
    def counts(self) -> Float[Tensor, "cluster destination"]:
        """Entries of one head that each edge covers on the images that are run."""
        return entry_counts(self.labels, self.clusters, self.destination)

    @cached_property
    def jitter(self) -> Float[Tensor, "image token"]:
        """A fixed number in [0, 1) for every row, evenly spread over the rows of each cluster."""
        labels = self.labels.reshape(-1).numpy()
        drawn = np.random.default_rng([self._seed, 11]).random(labels.size)
        order = np.lexsort((drawn, labels))
        sizes = np.bincount(labels, minlength=self.clusters)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        spaced = np.empty(labels.size, dtype=np.float32)
        ordered = labels[order]
        spaced[order] = (np.arange(labels.size) - starts[ordered] + 0.5) / sizes[ordered]
        return torch.from_numpy(spaced).reshape(self.labels.shape)

    def part(self, rows: slice, device: torch.device) -> SitePart:
        """The site on some of the images."""
        return SitePart(
            self,
            self.labels[rows].to(device),
            self.jitter[rows].to(device),
            self.fit.position_mean.to(device),
        )


class SitePart:
    """A site on one batch of images, on the model's device.

    Attributes
    ----------
    site : Site
    labels : Int[Tensor, "image token"]
    jitter : Float[Tensor, "image token"]
    position_mean : Float[Tensor, "head token token"]
        ``M_pos``.
    """

    def __init__(self, site: Site, labels: Tensor, jitter: Tensor, position_mean: Tensor) -> None:
        self.site, self.labels, self.jitter = site, labels, jitter
        self.position_mean = position_mean

    @property
    def layer(self) -> int:
        """Layer of the attention."""
        return self.site.layer

    @property
    def entries(self) -> tuple[int, int, int, int]:
        """Images, heads, tokens and tokens: the shape of the batch's logits."""
        images, tokens = self.labels.shape
        return images, self.site.shape[1], tokens, tokens
