"""`attribution`: edges by what gradients say removing them does (edge attribution patching)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.rankings.base import Ranking

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit
    from xaikit.interventions.live import Live


def attribution(live: Live) -> Float[Tensor, "cluster head destination"]:
    """``Σ_{entries} ∂m/∂A · (M_pos − A)``, `m` the sum of ``1 − cos`` over the images.

    The gradient of `m` vanishes at the clean input, so it is averaged over ``live.ig_steps``
    points on the way from `A` to `M_pos`, the middles of equal parts; with one step that is the
    gradient half-way.

    References
    ----------
    Syed, Rager and Conmy (2023), Attribution patching outperforms automated circuit discovery.
    Hanna, Pezzelle and Belinkov (2024), Have faith in faithfulness (EAP-IG).
    """
    import torch

    from xaikit.interventions.scoring import cosine_loss, edge_sums, gradients, midpoints

    total = torch.zeros(live.shape, dtype=torch.float64)
    mean = live.position_mean
    for batch in live.batches(live.progress, "images attributed"):
        loss = cosine_loss(batch)
        for t in midpoints(live.ig_steps):
            found, clean = gradients(
                batch,
                lambda logits, t=t: torch.lerp(logits, mean.expand_as(logits), t),  # type: ignore[misc]
                lambda embedding: [loss(embedding)],
            )
            part = edge_sums(found[0].double() * (mean - clean), batch)
            total += part.sum(0).cpu() / live.ig_steps
    return total


def _score(_fit: Fit, live: Live) -> Tensor:
    return attribution(live)


RANKING = Ranking(
    key="attribution", name="attribution patching", score=_score, needs_model=True
)
