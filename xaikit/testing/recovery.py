"""How well scores tell planted edges from absent ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from xaikit.testing.planted_truth import PlantedTruth


def recovery_auroc(
    scores: Float[Tensor, "cluster head destination"],
    truth: PlantedTruth,
    destination: str,
    blank_group: int,
) -> float:
    """Chance that a planted edge scores above an absent one; ties count half.

    Left out are echoes, and everything from or to clusters that are empty or of tokens without
    content.

    Parameters
    ----------
    scores : Tensor
        `[K, H, N]` for token destinations, `[K, H, K]` for cluster destinations; higher is first.
    truth : PlantedTruth
        Of the same clusters.
    destination : str
        ``token`` or ``cluster``.
    blank_group : int
        `PlantedSpec.blank_group`.

    Returns
    -------
    float
        The area under the receiver operating characteristic; NaN where no edge is planted.

    References
    ----------
    Hanley and McNeil (1982), The meaning and use of the area under a ROC curve, Radiology 143.
    """
    present, absent = _told_apart(scores, truth, destination, blank_group)
    return _auroc(present, absent)


def joint_auroc(
    scores: Sequence[Float[Tensor, "cluster head destination"]],
    truths: Sequence[PlantedTruth | None],
    destination: str,
    blank_group: int,
) -> float:
    """Chance that a planted edge of any layer scores above an absent one of any layer.

    Parameters
    ----------
    scores : sequence of Tensor
        A table a layer.
    truths : sequence of PlantedTruth or None
        Of the same layers; None where no edge is planted, so that all are absent.
    destination, blank_group
        As in `recovery_auroc`.
    """
    present, absent = [], []
    for table, truth in zip(scores, truths, strict=True):
        if truth is None:
            absent.append(table.detach().double().cpu().reshape(-1))
            continue
        own = _told_apart(table, truth, destination, blank_group)
        present.append(own[0])
        absent.append(own[1])
    return _auroc(torch.cat(present), torch.cat(absent))


def _told_apart(
    scores: Tensor, truth: PlantedTruth, destination: str, blank_group: int
) -> tuple[Tensor, Tensor]:
    """Scores of the planted edges that count, and of the absent ones."""
    named = (truth.cluster_groups >= 0) & (truth.cluster_groups != blank_group)
    counted = named[:, None, None].expand(scores.shape)
    if destination == "token":
        planted, echo = truth.edge_token, truth.echo_token
    else:
        planted, echo = truth.edge_content, truth.echo_content
        counted = counted & named[None, None, :]
    values = scores.detach().double().cpu()
    return values[counted & planted], values[counted & ~planted & ~echo]


def _auroc(present: Tensor, absent: Tensor) -> float:
    above = (present[:, None] > absent).double() + 0.5 * (present[:, None] == absent)
    return float(above.mean())
