"""The sweep on planted towers: right at the true number of groups, and worse elsewhere."""

from __future__ import annotations

import pytest
from planted_calibration import traced

from xaikit.artifacts.options import checked
from xaikit.artifacts.studies import Stability
from xaikit.errors import UsageError
from xaikit.stages.stability import StabilityOptions, stability
from xaikit.testing import planted_tower


@pytest.fixture(scope="module")
def found() -> Stability:
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(60))
    options = StabilityOptions(
        num_clusters=(3, 7, 12), resamples=10, rank="contrast", top_k=4, sample_tokens=0
    )
    return stability(run, options)


def test_the_true_number_of_groups_is_found_again_by_every_seed(found):
    few, true, many = found.rows
    assert true["ari"] == pytest.approx(1.0)
    assert true["ari_halves"] == pytest.approx(1.0)
    # There are seven gate patterns: more clusters stay empty.
    assert many["clusters_used"] == true["clusters_used"] == 7
    assert true["inertia"] == pytest.approx(0.0, abs=1e-6)
    assert few["inertia"] > 1.0
    for where in ("token", "cluster"):
        assert true[where]["r2_added"] > few[where]["r2_added"] + 0.02
        assert true[where]["jaccard_seeds"] == pytest.approx(1.0)
        assert true[where]["jaccard_halves"] == pytest.approx(1.0, abs=0.5)


def test_guided_clusters_do_not_depend_on_seeds_and_halves_leave_the_prefix_out(found):
    tower = planted_tower(grid=4)
    run = traced(tower, tower.images(40))
    options = StabilityOptions(
        num_clusters=(7,), resamples=2, seeds=2, rank="contrast", top_k=4, method="guided"
    )
    (row,) = stability(run, options).rows
    assert row["ari"] == 1.0
    assert row["ari_halves"] > 0.5
    for where in ("token", "cluster"):
        assert row[where]["jaccard_seeds"] == row[where]["jaccard_seeds_patches"] == 1.0
        assert 0.0 <= row[where]["jaccard_halves_patches"] <= 1.0


def test_planted_circuits_hold_on_resampled_images(found):
    true = found.rows[1]["token"]
    assert true["jaccard"] == pytest.approx(1.0, abs=0.1)
    assert true["survival"] == pytest.approx(1.0, abs=0.1)
    assert true["jaccard_chance"] < 0.05


def test_the_sweep_is_written_and_read(found, tmp_path):
    found.save(tmp_path / "stability.json")
    assert Stability.load(tmp_path / "stability.json") == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": "zscore"}, "rank=zscore: expected one of weight, contrast, energy"),
        ({"seeds": 0}, "seeds=0: expected 1 or more"),
        ({"resamples": 0}, "resamples=0"),
        ({"num_clusters": ()}, "num_clusters"),
        ({"num_clusters": (8, 0)}, "num_clusters=0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        checked(StabilityOptions(**options))
