"""Is the best of several rankings better than the best of as many random orders?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xaikit.interventions.covers import Order
from xaikit.interventions.curves import draw_orders
from xaikit.interventions.live import Live, Patch
from xaikit.interventions.patches import order_patch

if TYPE_CHECKING:
    from torch import Tensor

SHARE = 0.1
"""Share of the entries at which rankings are compared with chance."""
DRAWS_A_RANKING = 20
"""Random orders for each ranking in the comparison: fewer than 19 could not reach p = .05."""


def chance_patches(live: Live, orders: Sequence[Order], draws: int, seed: int) -> list[Patch]:
    """Remove `SHARE` of the entries: of each ranking, then of random orders."""
    if not draws:
        return []
    many = max(draws, DRAWS_A_RANKING * len(orders))
    drawn = [*orders, *draw_orders(live, seed, 0, many)]
    return [order_patch(order, [SHARE]) for order in drawn]


def chance_record(
    live: Live, orders: Sequence[Order], measured: Sequence[dict[str, Tensor]]
) -> dict[str, Any]:
    """The artefact's ``chance``: the best ranking beside random orders.

    `pvalue` is the chance that of as many random orders as there are rankings the best one does
    as well: the best ranking was picked on the images that it is measured on.
    """
    if not measured:
        return {}
    metric = live.objective.metric
    effects = [float(found[metric].mean()) for found in measured]
    own, drawn = effects[: len(orders)], effects[len(orders) :]
    best = max(range(len(own)), key=own.__getitem__)
    above = sum(value >= own[best] for value in drawn)
    return {
        "share": SHARE,
        "metric": metric,
        "best": orders[best].key,
        **({"side": orders[best].side} if orders[best].side else {}),
        "rankings": len(orders),
        "effect": own[best],
        "draws": len(drawn),
        "random_mean": sum(drawn) / len(drawn),
        "random_best": max(drawn),
        "pvalue": best_of_pvalue(above, len(drawn), len(orders)),
    }


def best_of_pvalue(above: int, draws: int, rankings: int) -> float:
    """Chance that at most `above` of the random draws reach the best of `rankings` random ones.

    All orders being random and so exchangeable, the `above` + 1 best of them hold none of the
    `rankings` with probability ``Π (draws − i) / (draws + rankings − i)``.
    """
    none = 1.0
    for place in range(above + 1):
        none *= max(draws - place, 0) / (draws + rankings - place)
    return 1.0 - none
