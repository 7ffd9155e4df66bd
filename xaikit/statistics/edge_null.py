"""The permutation null of all edges of a part of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xaikit.statistics.effects import ablation_effects, injection_effects
from xaikit.statistics.sums import LogitSums
from xaikit.statistics.tails import NOT_TESTABLE, SAMPLED

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor


@dataclass(kw_only=True)
class EdgeNull:
    """Null of all edges of one part of the images.

    Attributes
    ----------
    zscores, energy : Float[Tensor, "cluster head destination"]
    moment_pvalues, moment_methods : Tensor or None
        p-values from the null's moments, and the code of the tail behind each, see
        `xaikit.statistics.tails`; none where tails were not asked for.
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
    energy: Float[Tensor, "cluster head destination"] | Float[Tensor, "0"]
    moment_pvalues: Float[Tensor, "cluster head destination"] | None
    moment_methods: UInt8[Tensor, "cluster head destination"] | None
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
            assert self.moment_pvalues is not None
            return self.moment_pvalues
        found = (1.0 + self.exceed) / (1.0 + self.draws)
        return torch.where(self._testable, found, 1.0)

    def methods(self, method: str) -> UInt8[Tensor, "cluster head destination"]:
        """Index into `xaikit.statistics.tails.METHODS`: how each of `pvalues` was found."""
        if method == "moments":
            assert self.moment_methods is not None
            return self.moment_methods
        return torch.where(self._testable, SAMPLED, NOT_TESTABLE).to(torch.uint8)

    @property
    def _testable(self) -> Bool[Tensor, "cluster head destination"]:
        # An edge whose prototype no permutation changes has z = 0: it cannot be tested.
        return self.occupied & (self.zscores != 0)


def untested_effects(sums: LogitSums, pairs: bool) -> dict[str, Any]:
    """What `xaikit.statistics.block_null.Draws` gives where no permutation was sampled."""
    prototypes = sums.pair_prototypes if pairs else sums.prototypes
    entries = sums.pair_counts if pairs else None
    nothing = torch.zeros(0, sums.clusters, dtype=torch.float64)
    return {
        "exceed": torch.zeros_like(prototypes),
        "ablation": ablation_effects(prototypes, entries),
        "injection": injection_effects(prototypes, sums.counts, entries),
        "null_ablation": nothing,
        "null_injection": nothing,
        "draws": 0,
        "draw_images": 0,
    }
