"""The permutation null of all edges at once, for both kinds of destination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from xaikit.progress import Progress, silent
from xaikit.statistics.effects import ablation_effects, injection_effects
from xaikit.statistics.moments import head_variance, label_covariance, zscores
from xaikit.statistics.multiple import two_sided_normal
from xaikit.statistics.pairs import PairNull, random_blocks
from xaikit.statistics.permutations import PermutedResiduals, image_permutations
from xaikit.statistics.sums import LogitSums, pair_position_share

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

PAIR_BLOCK = 64
"""Images within which label maps are permuted, for cluster destinations."""


class LogitSource(Protocol):
    """What the null reads: logits of chosen images, of all heads or one, in chunks."""

    def iter_logits(
        self, images: np.ndarray, *, head: int | None = None, chunk_bytes: int = ...
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield ``(image indices, logits)`` in image order."""
        ...


@dataclass(kw_only=True)
class EdgeNull:
    """Null of all edges of one part of the images.

    Attributes
    ----------
    zscores, energy : Float[Tensor, "cluster head destination"]
    exceed : Float[Tensor, "cluster head destination"]
        Share-free count of sampled permutations at least as far from the mean as the data.
    draws : int
    occupied : Bool[Tensor, "cluster head destination"]
        Edges with any support.
    ablation, injection : Float[Tensor, "cluster"]
        Effects of the unpermuted prototypes.
    null_ablation, null_injection : Float[Tensor, "draw cluster"]
    draw_images : int
        Images that the draws permute, where they are not all.
    """

    zscores: Float[Tensor, "cluster head destination"]
    energy: Float[Tensor, "cluster head destination"]
    exceed: Float[Tensor, "cluster head destination"]
    draws: int
    occupied: Bool[Tensor, "cluster head destination"]
    ablation: Tensor
    injection: Tensor
    null_ablation: Tensor
    null_injection: Tensor
    draw_images: int = 0

    def pvalues(self, method: str) -> Float[Tensor, "cluster head destination"]:
        """Two-sided p-values, of the ``moments`` or of the ``sampled`` permutations."""
        if method == "moments":
            found = two_sided_normal(self.zscores)
        else:
            found = (1.0 + self.exceed) / (1.0 + self.draws)
        # An edge whose prototype no permutation changes has z = 0: it cannot be tested.
        return torch.where(self.occupied & (self.zscores != 0), found, 1.0)


def effects_null(
    prototypes: Tensor,
    base: Tensor,
    counts: Tensor,
    permuted: Iterator[Tensor],
    draws: int,
    pair_counts: Tensor | None = None,
) -> dict[str, Any]:
    """Fold permuted prototypes, one draw at a time, into what a null keeps of them."""
    clusters = len(counts)
    null = torch.zeros(2, draws, clusters, dtype=torch.float64)
    exceed = torch.zeros_like(prototypes)
    distance = (prototypes - base).abs()
    slack = 1e-6 * distance
    for draw, found in enumerate(permuted):
        null[0, draw] = ablation_effects(found, pair_counts)
        null[1, draw] = injection_effects(found, counts, pair_counts)
        exceed += (found - base).abs() >= distance - slack
    return {
        "exceed": exceed,
        "ablation": ablation_effects(prototypes, pair_counts),
        "injection": injection_effects(prototypes, counts, pair_counts),
        "null_ablation": null[0],
        "null_injection": null[1],
    }


def token_null(
    trace: LogitSource,
    images: np.ndarray,
    labels: Int[Tensor, "image token"],
    sums: LogitSums,
    *,
    draws: int,
    seed: int,
    progress: Progress = silent,
) -> EdgeNull:
    """Exact moments over all images, and `draws` sampled permutations, for token destinations.

    Parameters
    ----------
    images : Int[ndarray, "image"]
        Sorted indices into the trace; `labels` and `sums` are theirs.
    """
    centre = sums.position_mean
    heads, tokens = centre.shape[:2]
    place = {int(image): at for at, image in enumerate(images)}
    covariance = label_covariance(labels, sums.clusters)
    variance = torch.zeros(sums.clusters, heads, tokens, dtype=torch.float64)
    energy = torch.zeros_like(variance)
    permutations = image_permutations(len(images), draws, seed)
    sampled = PermutedResiduals(labels, permutations, sums.clusters, heads)
    for head in range(heads):
        middle = centre[head].float()

        def chunks(head: int = head, middle: Tensor = middle) -> Iterator[tuple[Tensor, Tensor]]:
            for indices, logits in trace.iter_logits(images, head=head):
                at = [place[int(i)] for i in indices]
                yield labels[at], logits - middle

        variance[:, head], energy[:, head] = head_variance(chunks, covariance, len(images))
        progress("heads tested", head + 1, heads)
    if draws:
        for _, logits in trace.iter_logits(images):
            sampled.add(logits - centre.float())
    counts = sums.counts
    base = sums.position_share(centre) / counts.clamp(min=1.0)[:, None, None]
    scale = float((sums.square / max(len(images) * heads * tokens * tokens, 1)).sqrt())
    residual_sums = sums.residuals(centre) * counts[:, None, None]
    return EdgeNull(
        zscores=zscores(residual_sums, variance, counts[:, None, None], scale),
        energy=energy,
        draws=draws,
        occupied=(counts > 0)[:, None, None].expand(variance.shape),
        **effects_null(sums.prototypes, base, counts, sampled.means(base, counts), draws),
    )


def pair_null(
    trace: LogitSource,
    images: np.ndarray,
    labels: Int[Tensor, "image token"],
    sums: LogitSums,
    *,
    draws: int,
    seed: int,
    progress: Progress = silent,
) -> EdgeNull:
    """The same for cluster destinations, permuting within random blocks of 64 images."""
    centre = sums.position_mean
    heads, tokens = centre.shape[:2]
    null = PairNull(sums.clusters, heads, draws, seed)
    done = 0
    for block in random_blocks(len(images), PAIR_BLOCK, seed):
        logits = torch.cat([part for _, part in trace.iter_logits(images[block])])
        null.add(labels[block], logits - centre.float())
        done += len(block)
        progress("images permuted", done, len(images))
    counts = sums.pair_counts.clamp(min=1.0)[:, None, :]
    base = pair_position_share(labels, centre, sums.clusters) / counts
    scale = float((sums.square / max(len(images) * heads * tokens * tokens, 1)).sqrt())
    occupied = (sums.pair_counts > 0)[:, None, :].expand(null.variance.shape)
    permuted = (base + found / counts for found in null.draws)
    return EdgeNull(
        zscores=zscores(null.excess, null.variance, counts, scale),
        energy=null.energy,
        draws=draws,
        occupied=occupied,
        **effects_null(sums.pair_prototypes, base, sums.counts, permuted, draws, sums.pair_counts),
    )
