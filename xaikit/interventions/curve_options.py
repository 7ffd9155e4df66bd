"""What is measured in the live model beside its running: curves, single edges, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from xaikit.artifacts.options import checked, option
from xaikit.interventions.curves import BAND_SHARES, SHARES, Plan, check_shares
from xaikit.interventions.live_options import LiveOptions

if TYPE_CHECKING:
    from xaikit.interventions.covers import Order


@dataclass(frozen=True, kw_only=True)
class CurveOptions(LiveOptions):
    """Options of curves and of single edges, beside those of running the model.

    Attributes
    ----------
    shares, band_shares : sequence of float
        Shares of the logit entries at which curves, and random sets, are measured.
    draws : int
        Random edge sets behind each band.
    edges, edge_draws : int
        Single edges to test, and random edges that each is compared with.
    """

    shares: Sequence[float] = option(SHARES, "Shares of the logit entries.", metavar="SHARE,...")
    band_shares: Sequence[float] = option(BAND_SHARES)
    draws: int = option(20, "Random edge sets.", panel="Statistics", least=0)
    edges: int = option(20, "Edges to measure one by one.", least=0)
    edge_draws: int = option(
        39, "Random edges that each edge is compared with.", panel="Statistics", least=1
    )

    def check(self) -> None:
        """Refuse shares that are none."""
        super().check()
        check_shares(self.shares)

    def checked(self) -> Self:
        """The options with shares in order.

        Raises
        ------
        OptionError
            Naming the option that is out of range.
        """
        found = checked(self)
        bands = check_shares(found.band_shares)[:-1]
        return replace(found, shares=check_shares(found.shares), band_shares=bands)

    def plan(self, orders: list[Order], modes: Sequence[str]) -> Plan:
        """The curves of some orders, and their bands."""
        return Plan(
            orders=orders,
            modes=modes,
            shares=self.shares,
            band_shares=self.band_shares,
            draws=self.draws,
            seed=self.seed,
        )
