"""Areas, bands and single edges."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted_run import planted_run

from xaikit.errors import UsageError
from xaikit.interventions import (
    Plan,
    area_linear,
    area_log,
    chance,
    check_shares,
    full_patch,
    keep_figures,
    order_edges,
    random_order,
)
from xaikit.interventions.chance import best_of_pvalue, chance_patches, chance_record
from xaikit.interventions.curves import figures
from xaikit.interventions.edges import compare_edges
from xaikit.interventions.nodes import agreement, spearman


def test_areas_of_straight_lines() -> None:
    shares = [0.001, 0.01, 0.1, 1.0]
    assert area_linear(shares, shares) == pytest.approx(0.5)
    assert area_linear(shares, [1.0] * 4, start=1.0) == pytest.approx(1.0)
    assert area_log(shares, [0.0, 1 / 3, 2 / 3, 1.0]) == pytest.approx(0.5)
    assert area_log(shares, [1.0] * 4) == pytest.approx(1.0)
    assert area_log([1.0], [1.0]) == 0.0


def test_shares_are_sorted_and_end_at_one() -> None:
    assert check_shares([0.1, 0.01, 0.1]) == (0.01, 0.1, 1.0)
    for bad in (0.0, 1.5, -0.1):
        with pytest.raises(UsageError, match="expected shares in"):
            check_shares([bad])


def test_curves_end_at_the_full_effect_and_beat_the_band() -> None:
    run = planted_run("cluster", images=64, token_edges=0)
    live = run.live()
    order = order_edges("contrast", [run.fit.contrast.abs()], live.counts)
    plan = Plan(
        orders=[order],
        modes=("remove", "keep"),
        shares=(0.003, 0.03, 0.1, 0.5, 1.0),
        band_shares=(0.03, 0.1, 0.5),
        draws=6,
        seed=0,
    )
    said: set[str] = set()
    *measured, full = live.measure(
        [*plan.patches(live), full_patch(live.shapes)], lambda what, *_: said.add(what)
    )
    assert said == {"edits"}
    whole = {"cosine": float(full["cosine"].mean())}
    (remove, keep), (band, keep_band) = plan.records(live, measured, whole)
    assert remove["effects"][-1] == pytest.approx(whole["cosine"], rel=1e-6)
    assert remove["fractions"][-1] == pytest.approx(1.0)
    assert keep["effects"][-1] == pytest.approx(0.0, abs=1e-9)
    assert remove["fractions"][1] > 0.5
    assert band["mean"][0] < band["high"][0] < 0.3 * whole["cosine"]
    assert band["mean"][-1] == pytest.approx(whole["cosine"])
    assert keep_band["high"][-1] == 0.0
    assert keep_band["mean"][0] > 0.7 * whole["cosine"]
    assert keep["area_linear"] < keep_band["area_linear"]
    assert remove["area_log"] > 2 * band["area_log"]


def test_planted_edges_are_significant_and_random_ones_are_not() -> None:
    run = planted_run("token", images=64, content_edges=0)
    live = run.live(run.features.heldout[:16])
    table = run.planted.truth(
        run.features.labels, run.features.labels, run.features.num_clusters
    ).edge_token
    planted = [(0, *edge) for edge in table.nonzero().tolist()]
    generator = torch.Generator().manual_seed(5)
    absent = (~table & (live.counts[0][:, None] > 0)).nonzero()
    chosen = absent[torch.randperm(len(absent), generator=generator)[:12]].tolist()
    for edges, real in ((planted, True), ([(0, *edge) for edge in chosen], False)):
        comparison = compare_edges(live, edges, draws=39, seed=0)
        assert all(len(pool) == 39 for pool in comparison.pools)
        assert not set(edges) & set(comparison.drawn)
        _, pvalues, qvalues = comparison.results(live, live.measure(comparison.patches(live)))
        significant = [q <= 0.05 for q in qvalues]
        assert all(significant) if real else not any(significant)
        assert max(pvalues) <= 0.05 if real else max(pvalues) > 0.3


def test_random_edges_cover_about_as_much() -> None:
    live = planted_run("token", images=64, content_edges=0).live()
    comparison = compare_edges(live, [(0, 0, 0, 3), (0, 4, 1, 8)], draws=20, seed=1)
    for edge, pool in zip(comparison.edges, comparison.pools, strict=True):
        cover = float(live.counts[0][edge[1], edge[3]])
        for place in pool:
            other = comparison.drawn[place]
            assert 0.8 <= float(live.counts[0][other[1], other[3]]) / cover <= 1.25


def test_an_edge_that_covers_nothing_is_not_significant() -> None:
    live = planted_run("token", images=64, content_edges=0).live()
    live.counts[0][0] = 0
    comparison = compare_edges(live, [(0, 0, 0, 3)], draws=5, seed=1)
    _, pvalues, _ = comparison.results(live, live.measure(comparison.patches(live)))
    assert pvalues == [1.0]


def test_rank_correlation_with_ties() -> None:
    from scipy.stats import spearmanr

    left, right = [1.0, 2.0, 2.0, 5.0, 0.0], [3.0, 1.0, 2.0, 2.0, 2.0]
    assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert agreement([])["ablation"] is None


def test_keep_figures_of_a_straight_line_and_of_a_perfect_circuit() -> None:
    shares = [0.25, 0.5, 0.75, 1.0]
    straight = keep_figures(shares, [0.75, 0.5, 0.25, 0.0])
    assert (straight["cpr"], straight["cmd"]) == (pytest.approx(0.5), pytest.approx(0.5))
    perfect = keep_figures(shares, [0.0] * 4)
    # Nothing kept is nothing held: the first step still rises from 0.
    assert perfect["cpr"] == pytest.approx(1 - 0.25 / 2)
    assert perfect["cmd"] == pytest.approx(0.25 / 2)
    assert (perfect["cpr_log"], perfect["cmd_log"]) == (pytest.approx(1.0), 0.0)
    over = keep_figures(shares, [-0.5, -0.5, -0.5, 0.0])
    assert over["cpr"] > 1
    assert over["cmd"] > 0.3


def curve_figures(mode: str, left: float) -> dict[str, float]:
    """Areas of a two-point band and of what a plan draws for it."""
    return figures([0.01, 1.0], [left, 1.0 if mode == "remove" else 0.0], mode, 1.0)


def test_a_keep_curve_starts_at_the_full_effect_and_a_removal_curve_at_none() -> None:
    keep, remove = curve_figures("keep", 0.8), curve_figures("remove", 0.2)
    assert keep["area_linear"] == pytest.approx(0.01 * (1 + 0.8) / 2 + 0.99 * 0.8 / 2)
    assert remove["area_linear"] == pytest.approx(0.01 * 0.2 / 2 + 0.99 * (0.2 + 1) / 2)
    assert "cmd" in keep
    assert "cmd" not in remove
    assert "cmd" not in figures([0.1, 1.0], [0.0, 0.0], "keep", 0.0)


@pytest.fixture(scope="module")
def bands() -> list[dict]:
    """Bands of 40 draws whose effects are 0, 1, … 39 at the one share below 1."""
    live = planted_run("token", images=64, content_edges=0).live()
    plan = Plan(
        orders=[],
        modes=("remove", "keep"),
        shares=(0.01, 0.5, 1.0),
        band_shares=(0.5,),
        draws=40,
        seed=0,
    )
    drawn = [{"cosine": torch.full((1, 3), float(value)).double()} for value in range(40)]
    return plan.records(live, [*drawn, *drawn], {"cosine": 100.0})[1]


def test_a_band_holds_the_middle_95_percent_of_its_draws(bands: list[dict]) -> None:
    for band in bands:
        assert band["low"][0] == pytest.approx(0.025 * 39)
        assert band["high"][0] == pytest.approx(0.975 * 39)
        assert band["mean"][0] == pytest.approx(19.5)


def test_a_band_reaches_to_the_left_end_of_the_curves(bands: list[dict]) -> None:
    """Its first share is .5, the curves' .01: effects go with the share in between."""
    remove, keep = bands
    left = 0.195 * 0.01 / 0.5
    assert remove["area_log"] == pytest.approx(area_log([0.01, 0.5, 1], [left, 0.195, 1]))
    left = 1 + (0.195 - 1) * 0.01 / 0.5
    assert keep["area_log"] == pytest.approx(area_log([0.01, 0.5, 1], [left, 0.195, 0]))


def test_the_best_of_several_is_compared_with_the_best_of_as_many() -> None:
    assert best_of_pvalue(0, 19, 1) == pytest.approx(0.05)
    assert best_of_pvalue(0, 80, 4) == pytest.approx(4 / 84)
    assert best_of_pvalue(1, 19, 1) == pytest.approx(2 / 20)
    # The best two of 84 are none of the four.
    assert best_of_pvalue(1, 80, 4) == pytest.approx(1 - 80 / 84 * 79 / 83)
    assert best_of_pvalue(80, 80, 4) == 1.0
    rng = np.random.default_rng(0)
    for rankings in (1, 4):
        draws = 20 * rankings
        found = []
        for _ in range(2000):
            values = rng.standard_normal(draws + rankings)
            above = int((values[rankings:] >= values[:rankings].max()).sum())
            found.append(best_of_pvalue(above, draws, rankings) <= 0.05)
        assert 0.03 < np.mean(found) < 0.065


def test_random_rankings_are_no_better_than_chance() -> None:
    """Four random orders as rankings: the best of them is no finding."""
    live = planted_run("token", images=64, content_edges=0).live(list(range(1, 9, 2)))
    orders = [random_order(live.counts, live.shapes, [99, seed]) for seed in range(4)]
    patches = chance_patches(live, orders, draws=5, seed=0)
    assert len(patches) == 4 + 80
    record = chance_record(live, orders, live.measure(patches))
    assert record["pvalue"] > 0.05
    good = order_edges("contrast", [live.sites[0].fit.contrast.abs()], live.counts)
    patches = chance_patches(live, [good], draws=5, seed=0)
    record = chance_record(live, [good], live.measure(patches))
    assert (record["best"], record["draws"]) == ("contrast", 20)
    assert record["pvalue"] <= 0.05
    assert chance_record(live, [good], []) == {}


def test_one_in_twenty_runs_of_random_rankings_is_better_than_chance() -> None:
    """Live effects of 168 random orders, shared out again and again into four rankings and 80."""
    live = planted_run("token", images=64, content_edges=0).live(list(range(1, 9, 2)))
    patches = chance_patches(live, [], draws=168, seed=5)
    pool = live.measure(patches)
    rng = np.random.default_rng(0)
    orders = [random_order(live.counts, live.shapes, [99, seed]) for seed in range(4)]
    found = []
    for _ in range(1500):
        chosen = rng.choice(168, 84, replace=False)
        found.append(chance_record(live, orders, [pool[at] for at in chosen])["pvalue"] <= 0.05)
    # One of the 80 draws at most may be better: the exact rate is 4/84.
    assert np.mean(found) == pytest.approx(4 / 84, abs=3 * (0.05 * 0.95 / 1500) ** 0.5)


def test_random_orders_follow_from_the_seed_and_the_number_of_their_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = planted_run("token", images=64, content_edges=0).live()
    given = {"orders": [], "modes": ("remove",), "shares": (1.0,), "band_shares": (0.5,)}
    one, more, other = (
        [order.ranked for order in Plan(**given, draws=draws, seed=seed).random_orders(live)]
        for draws, seed in ((2, 4), (3, 4), (2, 5))
    )
    assert [len(one), len(more)] == [2, 3]
    assert all(torch.equal(a, b) for a, b in zip(one, more, strict=False))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], other[0])
    asked = []
    monkeypatch.setattr(chance, "draw_orders", lambda _live, *drawn: asked.append(drawn) or [])
    chance_patches(live, [], draws=21, seed=4)
    assert asked == [(4, 0, 21)]


@pytest.mark.parametrize(("drawn", "above"), [([0.1] * 4, 0), ([0.3, 0.1, 0.3, 0.5], 3)])
def test_a_random_order_that_does_as_well_counts_against_the_best(
    drawn: list[float], above: int
) -> None:
    live = SimpleNamespace(objective=SimpleNamespace(metric="cosine"))
    orders = [SimpleNamespace(key=key, side="") for key in ("a", "b")]
    measured = [{"cosine": torch.full((1, 2), value)} for value in (0.2, 0.3, *drawn)]
    record = chance_record(live, orders, measured)  # type: ignore[arg-type]
    assert (record["best"], record["rankings"], record["draws"]) == ("b", 2, 4)
    assert record["effect"] == pytest.approx(0.3)
    assert record["random_best"] == pytest.approx(max(drawn))
    assert record["random_mean"] == pytest.approx(sum(drawn) / 4)
    assert record["pvalue"] == best_of_pvalue(above, 4, 2)
