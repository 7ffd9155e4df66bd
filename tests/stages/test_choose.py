"""The number of clusters that a sweep chooses."""

from __future__ import annotations

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
