"""P-values and their correction for families of tests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scipy.stats import false_discovery_control

from xaikit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from xaikit.artifacts.tensors import Fit


def benjamini_hochberg(pvalues: Float[Tensor, "*tests"]) -> Float[Tensor, "*tests"]:
    """q-values of a family of tests.

    The smallest false discovery rate at which each test would be rejected: ``min over larger
    p of p m / rank``, at most 1. A test without a p-value (NaN) is none of the family.

    References
    ----------
    Benjamini and Hochberg (1995), Controlling the false discovery rate, J. R. Stat. Soc. B 57.
    """
    found = pvalues.double().clone()
    tested = ~found.isnan()
    if tested.any():
        family = false_discovery_control(found[tested].cpu().numpy(), method="bh")
        found[tested] = torch.from_numpy(family).to(found.device)
    return found


def number(value: float | Tensor) -> float | None:
    """A number for a record: None in place of NaN, which stands for a test that is not given."""
    found = float(value)
    return None if math.isnan(found) else found


def two_sided_normal(zscores: Float[Tensor, "*tests"]) -> Float[Tensor, "*tests"]:
    """Two-sided p-values of standard normal scores."""
    tails: Tensor = torch.special.erfc(zscores.double().abs() / math.sqrt(2.0))
    return tails


def discovery_qvalues(fit: Fit) -> Float[Tensor, "cluster head destination"]:
    """q-values of all edges on the images that edges are chosen on.

    Raises
    ------
    UsageError
        Of guided clusters, which have seen the attention of those images.
    """
    _refuse_guided([fit])
    if not fit.heldout_r2:
        return fit.edge_qvalues
    return benjamini_hochberg(fit.discovery_pvalues)


def joint_discovery_qvalues(
    fits: Sequence[Fit],
) -> list[Float[Tensor, "cluster head destination"]]:
    """q-values over the edges of all layers, see `discovery_qvalues`."""
    _refuse_guided(fits)
    tables = [fit.discovery_pvalues if fit.heldout_r2 else fit.edge_pvalues for fit in fits]
    joined = benjamini_hochberg(torch.cat([table.reshape(-1) for table in tables]))
    parts = joined.split([table.numel() for table in tables])
    return [part.reshape(table.shape) for part, table in zip(parts, tables, strict=True)]


def _refuse_guided(fits: Sequence[Fit]) -> None:
    if any(fit.method == "guided" for fit in fits):
        raise UsageError(
            "`max_qvalue=` filters by tests on the images that clusters were learnt on, and guided "
            "clusters have seen their attention: leave it out, or use `method=kmeans`"
        )


def permutation_pvalues(
    observed: Float[Tensor, "*tests"], null: Float[Tensor, "draw *tests"], rounding: float = 1e-9
) -> Float[Tensor, "*tests"]:
    """``(1 + #{null >= observed}) / (1 + m)`` over the first axis of `null`.

    Parameters
    ----------
    rounding : float
        Draws within this (relative) of the observed value count as equal, so that a statistic
        which no permutation changes gets p = 1 and not a p-value of rounding errors.

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.
    """
    observed = observed.double()
    slack = rounding * observed.abs()
    exceed = (null.double() >= observed - slack).sum(0)
    return (1.0 + exceed.double()) / (1.0 + null.shape[0])
