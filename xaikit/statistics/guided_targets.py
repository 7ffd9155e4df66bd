"""How much each token's row and column of attention matter: targets of guided clusters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def pattern_strengths(
    logits: Float[Tensor, "image head token token"],
    position_mean: Float[Tensor, "head token token"],
    prefix: int,
) -> Float[Tensor, "image patch strength"]:
    """``Σ_j (p − p_pos)²`` of each patch's row and ``Σ_i (p − p_pos)²`` of its column, by head.

    Without the model: how far attention patterns are from those of the position-only mean.

    Parameters
    ----------
    prefix : int
        Prefix tokens, which are no patches.

    Returns
    -------
    Tensor
        Rows of all heads, then columns of all heads ``[B, P, 2 H]``, float32.
    """
    usual = position_mean.float().softmax(-1)
    return torch.stack(
        [_sides((one.float().softmax(-1) - usual).square(), prefix) for one in logits]
    )


def move_strengths(
    moves: Iterable[Float[Tensor, "image head token token"]], prefix: int
) -> Float[Tensor, "image patch strength"]:
    """Root-mean-square move of the embedding, over directions, by each patch's row and column.

    Parameters
    ----------
    moves : iterable of Tensor
        For each direction, every entry's move along it.

    Returns
    -------
    Tensor
        As `pattern_strengths`.
    """
    total, count = None, 0
    for move in moves:
        square = torch.stack([_sides(one.float(), prefix) for one in move]).square()
        total = square if total is None else total + square
        count += 1
    if total is None:
        raise ValueError("no direction was given")
    return (total / count).sqrt()


def _sides(
    values: Float[Tensor, "head token token"], prefix: int
) -> Float[Tensor, "patch strength"]:
    """Sums over each patch's row, then over its column."""
    rows, columns = values.sum(2)[:, prefix:], values.sum(1)[:, prefix:]
    return torch.cat([rows, columns]).T
