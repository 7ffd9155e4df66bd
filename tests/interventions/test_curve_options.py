"""Options of curves: what is put in order, what is refused, and what a plan takes of them."""

from __future__ import annotations

import pytest

from xaikit.errors import OptionError, UsageError
from xaikit.interventions import CurveOptions


def test_shares_come_in_order_and_a_band_ends_at_the_whole_by_itself() -> None:
    found = CurveOptions(shares=(0.5, 0.1), band_shares=(0.5, 1.0, 0.1)).checked()
    assert found.shares == (0.1, 0.5, 1.0)
    assert found.band_shares == (0.1, 0.5)


@pytest.mark.parametrize("name", ["shares", "band_shares"])
def test_shares_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"shares in \(0, 1\]"):
        CurveOptions(**{name: (0.1, 1.5)}).checked()


def test_what_running_the_model_refuses_is_refused() -> None:
    with pytest.raises(UsageError, match="`against=TEXT` needs `toward=TEXT`"):
        CurveOptions(against="red").checked()


def test_a_plan_is_of_the_options_shares_draws_and_seed() -> None:
    o = CurveOptions(
        shares=(0.2, 1.0), band_shares=(0.4, 0.6), draws=3, edges=5, edge_draws=7, seed=11
    )
    plan = o.plan(["an order"], ("keep",))  # type: ignore[list-item]
    assert (plan.orders, plan.modes) == (["an order"], ("keep",))
    assert (plan.shares, plan.band_shares) == ((0.2, 1.0), (0.4, 0.6))
    assert (plan.draws, plan.seed) == (3, 11)
