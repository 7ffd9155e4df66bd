"""Areas, bands and single edges."""

from __future__ import annotations

import pytest
import torch
from planted_run import planted_run

from xaikit.errors import UsageError
from xaikit.interventions import (
    Plan,
    area_linear,
    area_log,
    check_shares,
    full_patch,
    order_edges,
)
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
    order = order_edges("contrast", run.fit.contrast.abs(), live.counts, "cluster")
    plan = Plan(
        orders=[order],
        modes=("remove", "keep"),
        shares=(0.003, 0.03, 0.1, 0.5, 1.0),
        band_shares=(0.03, 0.1, 0.5),
        draws=6,
        seed=0,
    )
    *measured, full = live.measure([*plan.patches(live), full_patch()])
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
    planted = [tuple(edge) for edge in table.nonzero().tolist()]
    generator = torch.Generator().manual_seed(5)
    absent = (~table & (live.counts[:, None] > 0)).nonzero()
    chosen = absent[torch.randperm(len(absent), generator=generator)[:12]].tolist()
    for edges, real in ((planted, True), ([tuple(edge) for edge in chosen], False)):
        comparison = compare_edges(live, edges, draws=39, seed=0)
        assert all(len(pool) == 39 for pool in comparison.pools)
        assert not set(edges) & set(comparison.drawn)
        _, pvalues, qvalues = comparison.results(live.measure(comparison.patches(live)))
        significant = [q <= 0.05 for q in qvalues]
        assert all(significant) if real else not any(significant)
        assert max(pvalues) <= 0.05 if real else max(pvalues) > 0.3


def test_random_edges_cover_about_as_much() -> None:
    live = planted_run("token", images=64, content_edges=0).live()
    comparison = compare_edges(live, [(0, 0, 3), (4, 1, 8)], draws=20, seed=1)
    for edge, pool in zip(comparison.edges, comparison.pools, strict=True):
        cover = float(live.counts[edge[0], edge[2]])
        for place in pool:
            other = comparison.drawn[place]
            assert 0.8 <= float(live.counts[other[0], other[2]]) / cover <= 1.25


def test_an_edge_that_covers_nothing_is_not_significant() -> None:
    live = planted_run("token", images=64, content_edges=0).live()
    live.counts[0] = 0
    comparison = compare_edges(live, [(0, 0, 3)], draws=5, seed=1)
    _, pvalues, _ = comparison.results(live.measure(comparison.patches(live)))
    assert pvalues == [1.0]


def test_rank_correlation_with_ties() -> None:
    from scipy.stats import spearmanr

    left, right = [1.0, 2.0, 2.0, 5.0, 0.0], [3.0, 1.0, 2.0, 2.0, 2.0]
    assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert agreement([])["ablation"] is None
