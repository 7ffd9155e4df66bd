"""The number of clusters that a sweep chooses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch
from conftest import make_trace
from planted_calibration import traced

from xaikit.artifacts.studies import ClusterSweep
from xaikit.errors import UsageError
from xaikit.stages import choose
from xaikit.stages.choose import choose_clusters, chosen_row
from xaikit.stages.cluster import ClusterOptions, cluster
from xaikit.testing import planted_tower


def test_the_fewest_within_one_standard_error_of_the_best_are_chosen() -> None:
    # Means .1, .29, .3; the error of the best is .02 / sqrt(2), so .29 is within it.
    folds = [[0.1, 0.29, 0.28], [0.1, 0.29, 0.32]]
    rows, chosen = chosen_row([4, 8, 16], [folds])
    assert chosen == 8
    assert rows[2]["r2_added"] == pytest.approx(0.3)
    assert rows[2]["r2_added_se"] == pytest.approx(0.02)
    # Means over layers: the second layer puts 8 out of reach of 16.
    assert chosen_row([4, 8, 16], [folds, [[0.0, 0.0, 0.2], [0.0, 0.0, 0.2]]])[1] == 16
    # A number's own error does not bring it nearer, and without any the best one is the best.
    assert chosen_row([4, 8], [[[0.0, 0.3], [0.4, 0.3]]])[1] == 8
    assert chosen_row([4, 8], [[[0.0, 0.1], [0.0, 0.1]]])[1] == 8
    # Nothing is gained: the fewest.
    assert chosen_row([4, 8], [[[0.0, -0.1], [0.0, -0.1]]])[1] == 4


@pytest.mark.parametrize("method", ["kmeans", "guided"])
def test_planted_groups_need_as_many_clusters_and_no_more(method: str) -> None:
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(48))
    options = ClusterOptions(num_clusters=None, method=method, holdout=0.25, sample_tokens=0)
    found = choose_clusters([run], options, "cluster")
    # There are seven gate patterns.
    assert found.num_clusters == 8
    assert found.num_images == 36
    assert found.destination == found.provenance.options["destination"] == "cluster"
    assert [row["num_clusters"] for row in found.rows] == list(choose.SWEEP)
    by_number = {row["num_clusters"]: row["r2_added"] for row in found.rows}
    assert by_number[8] > by_number[4] + 0.02
    assert by_number[64] == pytest.approx(by_number[8], abs=0.01)


def test_images_that_are_held_out_decide_nothing() -> None:
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(24))
    options = ClusterOptions(num_clusters=None, holdout=0.5)
    heldout = cluster(run, num_clusters=4, holdout=0.5).heldout
    found = choose_clusters([run], options)
    logits = run.attn_logits_l1.clone()
    logits[heldout] = torch.randn(logits[heldout].shape)
    other = make_trace(logits, run.ffn_gate_l)
    other.info.provenance = run.provenance
    other.info.images = run.images
    assert choose_clusters([other], options).rows == found.rows


def test_a_sweep_is_written_and_read(tmp_path) -> None:
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(8))
    found = choose_clusters([run], ClusterOptions(num_clusters=None))
    found.save(tmp_path / "num_clusters.json")
    assert ClusterSweep.load(tmp_path / "num_clusters.json") == found


def test_too_few_images_and_a_number_that_is_not_known_are_refused() -> None:
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(7))
    with pytest.raises(UsageError, match=r"`num_clusters=auto` compares .* 8 .* there are 7"):
        choose_clusters([run], ClusterOptions(num_clusters=None))
    with pytest.raises(UsageError, match="num_clusters=auto"):
        cluster(run, num_clusters=None)


def noise(images: int = 24, tokens: int = 4) -> Any:
    generator = torch.Generator().manual_seed(0)
    return make_trace(torch.randn(images, 1, tokens, tokens, generator=generator))


def test_a_sweep_is_of_some_discovery_images_of_the_clusters_own_split(monkeypatch) -> None:
    run = noise()
    splits = []
    for seed in (0, 3):
        options = ClusterOptions(num_clusters=None, holdout=0.5, seed=seed)
        discovery = cluster(run, num_clusters=3, holdout=0.5, seed=seed).discovery
        assert choose.discovery_rows(run, options) == sorted(discovery)
        splits.append(discovery)
        with monkeypatch.context() as few:
            few.setattr(choose, "IMAGES", 9)
            some = choose.discovery_rows(run, options)
        assert (len(some), some[0], some[-1]) == (9, min(discovery), max(discovery))
        assert set(some) <= set(discovery)
    assert splits[0] != splits[1]


@pytest.mark.parametrize(
    ("kinds", "prefix", "images", "tokens", "numbers"),
    [
        # With three clusters for prefix tokens, four leave one for the patches.
        (["class token", "register 1", "distillation token"], "own", 192, 9, [8, 16, 32, 64]),
        (["class token", "register 1", "distillation token"], "mixed", 192, 9, [4, 8, 16, 32, 64]),
        (["class token"], "own", 192, 9, [4, 8, 16, 32, 64]),
        # Two tokens a cluster at least.
        (["class token"], "own", 8, 4, [4, 8, 16]),
    ],
)
def test_numbers_leave_some_for_the_patches_and_have_tokens_enough(
    kinds: list[str], prefix: str, images: int, tokens: int, numbers: list[int]
) -> None:
    trace: Any = Some(info=Some(tokens=tokens, prefix_kinds=kinds))
    options = ClusterOptions(num_clusters=None, prefix=prefix)
    assert choose._Sweep(trace, options, "token", list(range(images))).numbers == numbers


def test_clusters_are_scored_on_a_fold_that_they_were_not_learnt_on(monkeypatch) -> None:
    run, learnt, summed = noise(images=16), [], []
    monkeypatch.setattr(choose, "SWEEP", (4,))
    options = ClusterOptions(num_clusters=None)
    real, part = choose._Sweep._learnt, choose.image_part
    monkeypatch.setattr(
        choose._Sweep, "_learnt", lambda own, images: learnt.append(images) or real(own, images)
    )
    monkeypatch.setattr(
        choose, "image_part", lambda *given: summed.append(list(given[2])) or part(*given)
    )
    choose._Sweep(run, options, "token", list(range(16))).added()
    folds = [list(range(fold, 16, 4)) for fold in range(4)]
    others = [[image for image in range(16) if image not in fold] for fold in folds]
    assert learnt == others
    assert summed == [each for pair in zip(others, folds, strict=True) for each in pair]


@pytest.mark.parametrize(
    ("asked", "taken", "prefix"), [(0, 30, "own"), (9, 9, "mixed"), (99, 30, "own")]
)
def test_k_means_of_a_sweep_learns_from_as_many_tokens_as_asked_and_no_more_than_its_own_most(
    monkeypatch, asked: int, taken: int, prefix: str
) -> None:
    planned, seeds = [], []
    plan, learn = choose.SamplePlan.make, choose.learn_clusters

    def told(*given: Any, **more: Any) -> Any:
        planned.append((given[2:], more))
        return plan(*given, **more)

    monkeypatch.setattr(choose, "TOKENS", 30)
    monkeypatch.setattr(choose.SamplePlan, "make", told)
    monkeypatch.setattr(
        choose, "learn_clusters", lambda *given: seeds.append(given[-1]) or learn(*given)
    )
    options = ClusterOptions(num_clusters=None, sample_tokens=asked, prefix=prefix, seed=5)
    sweep = choose._Sweep(noise(images=8), options, "token", list(range(8)))
    sweep._learnt(list(range(6)))
    # The class token is labelled by its place, or is a token like others.
    assert planned == [((taken, 5), {"prefix": int(prefix == "own")})]
    assert seeds == [5] * len(sweep.numbers)


def test_several_layers_are_swept_for_one_number(monkeypatch) -> None:
    low, high = noise(images=8), noise(images=8)
    high.info.provenance = replace(high.info.provenance, layer=7, next_layer=8)
    added = lambda own: [[float(own.trace.layer)] * len(own.numbers)] * choose.FOLDS  # noqa: E731
    monkeypatch.setattr(choose._Sweep, "added", added)
    said: list[Any] = []
    found = choose_clusters(
        [low, high], ClusterOptions(num_clusters=None), progress=lambda *what: said.append(what)
    )
    assert found.layers == [[2, 3], [7, 8]]
    assert (found.provenance.layer, found.num_images) == (2, 8)
    assert [row["r2_added"] for row in found.rows] == [(2 + 7) / 2] * 3
    assert [row["num_clusters"] for row in found.rows] == [4, 8, 16]
    assert [what for what in said if what[0] == "layers swept"] == [
        ("layers swept", 1, 1),
        ("layers swept", 2, 2),
    ]
