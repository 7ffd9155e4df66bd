"""Logits that are no numbers are refused where they are met, by layer, image and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from xaikit.errors import XaikitError

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.towers.interception import AttentionCall

ImageNames = Callable[[int], str]
"""Name of an image by its row of a batch."""


def require_finite_call(call: AttentionCall, layer: int, names: ImageNames) -> None:
    """Refuse a call whose queries or keys are not finite, without computing its logits.

    Parameters
    ----------
    call : AttentionCall
    layer : int
    names : callable

    Raises
    ------
    XaikitError
        It names the first image, the layer and the head.
    """
    sums = call.query.sum(dtype=torch.float32) + call.key.sum(dtype=torch.float32)
    if not bool(torch.isfinite(sums)):
        # The sum of huge numbers overflows as well: look at each.
        finite = torch.isfinite(call.query) & torch.isfinite(call.key)
        _refuse(finite.flatten(2).all(-1), layer, names)


def require_finite_logits(logits: Tensor, layer: int, names: ImageNames) -> None:
    """Refuse logits ``[image, head, token, token]`` that are not finite, as above."""
    finite = torch.isfinite(logits)
    if not bool(finite.all()):
        _refuse(finite.flatten(2).all(-1), layer, names)


def _refuse(finite: Tensor, layer: int, names: ImageNames) -> None:
    """Raise for the first False of ``[image, head]``."""
    for image, head in torch.nonzero(~finite)[:1].tolist():
        raise XaikitError(
            f"an attention logit of layer {layer} of image {names(image)}, head {head} is not "
            "finite: check the weights, or pass `precision=float32`"
        )
