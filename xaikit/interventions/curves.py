"""Removal and keep curves, their areas, and the band of random edge sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.errors import OptionError
from xaikit.interventions.covers import Order, random_order
from xaikit.interventions.live import Live, Patch
from xaikit.interventions.patches import order_patch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MODES = ("remove", "keep")
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BAND_SHARES = (0.01, 0.1, 0.2, 0.5)
"""A band is smooth and next to zero on the left, so that fewer points than a curve's draw it."""


def check_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """Shares in ascending order, the whole included.

    Raises
    ------
    OptionError
        If one is not in (0, 1].
    """
    for share in shares:
        if not 0.0 < share <= 1.0:
            raise OptionError("shares", share, "shares in (0, 1], such as 0.001,0.01,0.1")
    return tuple(sorted({*shares, 1.0}))


def area_linear(shares: Sequence[float], fractions: Sequence[float], start: float = 0.0) -> float:
    """Area under a curve over the share of entries, in [0, 1], from share 0 (value `start`)."""
    return _trapezoid([0.0, *shares], [start, *fractions])


def area_log(shares: Sequence[float], fractions: Sequence[float]) -> float:
    """Area over the logarithm of the share, from the smallest share to 1, divided by its length.

    0 where there is one share only.
    """
    places = [math.log10(share) for share in shares]
    length = places[-1] - places[0]
    return _trapezoid(places, list(fractions)) / length if length else 0.0


def keep_figures(shares: Sequence[float], fractions: Sequence[float]) -> dict[str, float]:
    """MIB's figures of a keep curve: ``cpr`` and ``cmd``, and their twins on the log axis.

    With ``f(k) = (m(C_k) − m(∅)) / (m(N) − m(∅))`` over shares `k` of the entries kept, cpr is
    ``∫ f`` and cmd ``∫ |1 − f|``. A fraction of the full effect is ``1 − f``.

    Parameters
    ----------
    shares : sequence of float
        Ascending, the last one 1.
    fractions : sequence of float
        Of the full effect that is left when only the share is kept.

    References
    ----------
    Mueller et al. (2025), MIB: A Mechanistic Interpretability Benchmark.
    """
    faithful = [1.0 - fraction for fraction in fractions]
    missing = [abs(fraction) for fraction in fractions]
    return {
        "cpr": area_linear(shares, faithful, 0.0),
        "cmd": area_linear(shares, missing, 1.0),
        "cpr_log": area_log(shares, faithful),
        "cmd_log": area_log(shares, missing),
    }


def _trapezoid(x: Sequence[float], y: Sequence[float]) -> float:
    return sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which curves to measure.

    Attributes
    ----------
    orders : list of Order
        One for each ranking, two where it is signed.
    modes : sequence of str
    shares : sequence of float
        Ascending, the last one 1.
    band_shares : sequence of float
        Ascending, below 1.
    draws : int
        Random orders for the band.
    seed : int
    """

    orders: list[Order]
    modes: Sequence[str]
    shares: Sequence[float]
    band_shares: Sequence[float]
    draws: int
    seed: int

    def patches(self, live: Live) -> list[Patch]:
        """Edits in the order that `records` reads them: curves first, then bands."""
        # At share 1 everything is ablated, or kept: known without running it.
        partial = self.shares[:-1]
        found = [order_patch(order, partial, mode) for mode in self.modes for order in self.orders]
        orders = self.random_orders(live)
        return found + [
            order_patch(order, self.band_shares, mode) for mode in self.modes for order in orders
        ]

    def random_orders(self, live: Live) -> list[Order]:
        """The random orders of the band."""
        return draw_orders(live, self.seed, 0, self.draws)

    def records(
        self,
        live: Live,
        measured: list[dict[str, Float[Tensor, "edit image"]]],
        full: dict[str, float],
    ) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """The artefact's ``curves`` and ``random`` of what was measured."""
        curves, bands, place = [], [], 0
        for mode in self.modes:
            for order in self.orders:
                curves += _curves(self, live, order, mode, measured[place], full)
                place += 1
        for mode in self.modes:
            drawn = measured[place : place + self.draws]
            place += self.draws
            if drawn:
                bands += _bands(self, live, mode, drawn, full)
        return curves, bands


def draw_orders(live: Live, seed: int, start: int, stop: int) -> list[Order]:
    """Random orders of the edges of all layers, by the number of their draw."""
    return [random_order(live.counts, live.shapes, [seed, 13, draw]) for draw in range(start, stop)]


def fractions_of(effects: Sequence[float], full: float) -> list[float]:
    """Effects as shares of the full effect; 0 where ablating everything changes nothing."""
    return [effect / full if full else 0.0 for effect in effects]


def figures(
    shares: Sequence[float], fractions: Sequence[float], mode: str, full: float
) -> dict[str, float]:
    """Areas under a curve, and of a keep curve MIB's figures where there is an effect at all."""
    # Share 0 is the clean model when removing, everything ablated when keeping.
    start = 0.0 if mode == "remove" else 1.0
    found = {
        "area_linear": area_linear(shares, fractions, start),
        "area_log": area_log(shares, fractions),
    }
    if mode == "keep" and full:
        found |= keep_figures(shares, fractions)
    return found


def _curves(
    plan: Plan,
    live: Live,
    order: Order,
    mode: str,
    measured: dict[str, Tensor],
    full: dict[str, float],
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for metric, values in measured.items():
        effects = [*values.mean(1).tolist(), full[metric] if mode == "remove" else 0.0]
        fractions = fractions_of(effects, full[metric])
        found.append(
            {
                "ranking": order.key,
                **({"side": order.side} if order.side else {}),
                **_what(live, mode, metric),
                "shares": list(plan.shares),
                "edges": [order.edges(share) for share in plan.shares],
                "effects": effects,
                "fractions": fractions,
                **figures(plan.shares, fractions, mode, full[metric]),
            }
        )
    return found


def _what(live: Live, mode: str, metric: str) -> dict[str, object]:
    return {
        "destination": live.destination,
        "ablation": live.options.ablation,
        "mode": mode,
        "metric": metric,
    }


def _bands(
    plan: Plan,
    live: Live,
    mode: str,
    drawn: list[dict[str, Tensor]],
    full: dict[str, float],
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for metric in live.metrics:
        table = torch.stack([values[metric].mean(1) for values in drawn])
        # Everything ablated, or everything kept: the same for every order.
        end = full[metric] if mode == "remove" else 0.0
        table = torch.cat([table, torch.full((len(table), 1), end, dtype=table.dtype)], dim=1)
        shares = [*plan.band_shares, 1.0]
        mean = table.mean(0).tolist()
        fractions = fractions_of(mean, full[metric])
        found.append(
            {
                "ranking": "random",
                **_what(live, mode, metric),
                "draws": len(drawn),
                "shares": shares,
                "mean": mean,
                "low": table.quantile(0.025, dim=0).tolist(),
                "high": table.quantile(0.975, dim=0).tolist(),
                "fractions": fractions,
                **_band_figures(plan, shares, fractions, mode, full[metric]),
            }
        )
    return found


def _band_figures(
    plan: Plan, shares: list[float], fractions: list[float], mode: str, full: float
) -> dict[str, float]:
    """Figures on the curves' axis: left of the band's first share, effects go with the share."""
    first = plan.shares[0]
    if first < shares[0]:
        start = 0.0 if mode == "remove" else 1.0
        lower = start + (fractions[0] - start) * first / shares[0]
        shares, fractions = [first, *shares], [lower, *fractions]
    return figures(shares, fractions, mode, full)
