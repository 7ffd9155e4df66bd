"""Clusters by position: each kind of prefix token is a cluster of its own, numbered last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Int64
    from torch import Tensor

PREFIXES = ("own", "mixed")
"""Whether prefix tokens get clusters of their own, or are clustered like patches."""


@dataclass(frozen=True, kw_only=True)
class PrefixClusters:
    """How `K` clusters are shared out between patches and kinds of prefix tokens.

    Attributes
    ----------
    num_clusters : int
        `K`.
    tokens : int
        Prefix tokens that are labelled by position; 0 with ``mixed``.
    kinds : tuple of str
        Names of the last clusters, such as ``("class token", "register")``.
    places : tuple of int
        Place in `kinds` of each prefix token.
    """

    num_clusters: int
    tokens: int
    kinds: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def patch_clusters(self) -> int:
        """Clusters that the other tokens share; they come first."""
        return self.num_clusters - len(self.kinds)

    @property
    def labels(self) -> Int64[Tensor, " prefix"]:
        """Cluster of each prefix token, the same in every image."""
        return torch.tensor(self.places, dtype=torch.int64) + self.patch_clusters

    def join(self, patches: Int64[Tensor, "image patch"]) -> Int64[Tensor, "image token"]:
        """Labels of all tokens from those of the patches."""
        first = self.labels.to(patches.device).expand(len(patches), -1)
        return torch.cat([first, patches], dim=1)


def prefix_clusters(num_clusters: int, names: Sequence[str], prefix: str = "own") -> PrefixClusters:
    """Share clusters out.

    Parameters
    ----------
    num_clusters : int
        `K`.
    names : sequence of str
        Of the prefix tokens, such as ``("class token", "register 1", "register 2")``; tokens
        whose names differ by a number at the end are of one kind.
    prefix : str
        ``own`` or ``mixed``, which are the same where there is no prefix token.

    Raises
    ------
    UsageError
        If `prefix` is neither, or no cluster would be left for the patches.
    """
    if prefix not in PREFIXES:
        raise UsageError(f"`prefix={prefix}`: expected one of {', '.join(PREFIXES)}")
    if prefix == "mixed":
        names = ()
    found = [re.sub(r"[ _]*\d+$", "", name) or name for name in names]
    kinds = tuple(dict.fromkeys(found))
    if num_clusters <= len(kinds):
        listed = ", ".join(kinds)
        raise UsageError(
            f"`num_clusters={num_clusters}` leaves none for the patches: with `prefix=own` each "
            f"kind of prefix token ({listed}) takes one; pass {len(kinds) + 1} or more, or "
            "`prefix=mixed`"
        )
    return PrefixClusters(
        num_clusters=num_clusters,
        tokens=len(found),
        kinds=kinds,
        places=tuple(kinds.index(kind) for kind in found),
    )
