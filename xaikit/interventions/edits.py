"""What is put in place of the logits that an edge set covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from xaikit.towers import AttentionCall, Edit

ABLATIONS = ("mean", "resample", "zero", "knockout", "pair")
FOUR = ("mean", "resample", "zero", "knockout")
"""Those that need nothing but the images."""
OF_PARTNERS = ("resample", "pair")
"""Those that take the logits of another image."""


def check_ablation(ablation: str) -> None:
    """Raise a UsageError for an unknown ablation, naming the known ones."""
    if ablation not in ABLATIONS:
        raise UsageError(f"`ablation={ablation}`: expected one of {', '.join(ABLATIONS)}")


def ablate(
    mask: Bool[Tensor, "image head token token"] | Callable[[], Tensor],
    ablation: str,
    *,
    position_mean: Float[Tensor, "head token token"] | None = None,
    partners: Float[Tensor, "image head token token"] | None = None,
) -> Edit:
    """Make an edit that replaces the masked logits.

    Parameters
    ----------
    mask : Bool[Tensor, "image head token token"] or callable
        Entries to replace; the others keep the model's own logit. A callable is asked for them
        when the attention is reached, so that masks of many layers need not exist together.
    ablation : str
        ``mean``: the position-only mean ``M_pos``. ``resample``: the same entry of another image,
        drawn at random. ``pair``: the same entry of a given partner image. ``zero``: the mean of
        the row's own logits, which is zero once a row is centred (softmax does not see the
        difference). ``knockout``: −∞, so that the destination gets no attention; a row whose
        every destination is knocked out attends to nothing, its head's output is zero.
    position_mean : Float[Tensor, "head token token"]
        For ``mean``.
    partners : Float[Tensor, "image head token token"]
        For ``resample`` and ``pair``: the clean logits of each image's partner.
    """
    check_ablation(ablation)

    def edit(call: AttentionCall, logits: Tensor) -> Tensor:
        inside = mask() if callable(mask) else mask
        if ablation == "mean":
            assert position_mean is not None
            return torch.where(inside, position_mean, logits)
        if ablation in OF_PARTNERS:
            assert partners is not None
            return torch.where(inside, partners, logits)
        if ablation == "zero":
            return torch.where(inside, logits.mean(-1, keepdim=True), logits)
        silent = inside.all(-1)
        call.silence(silent)
        return logits.masked_fill(inside & ~silent.unsqueeze(-1), -torch.inf)

    return edit


def overwrite(
    mask: Bool[Tensor, "image #head token #token"],
    values: Float[Tensor, "#image head #token token"],
) -> Edit:
    """Make an edit that puts given values in place of the masked logits."""

    def edit(_call: AttentionCall, logits: Tensor) -> Tensor:
        return torch.where(mask, values, logits)

    return edit


def derangement(images: int, seed: Sequence[int]) -> Int[Tensor, "image"]:
    """Draw a partner for every image: one random cycle, so that none is its own partner.

    Raises
    ------
    UsageError
        If there is only one image.
    """
    if images < 2:
        raise UsageError("`ablation=resample` takes logits from another image: pass two or more")
    cycle = torch.from_numpy(np.random.default_rng(list(seed)).permutation(images))
    partners = torch.empty_like(cycle)
    partners[cycle] = cycle.roll(-1)
    return partners
