"""Every p-value holds its level on planted towers without edges; the naive null does not.

`tests/benchmarks/bench_calibration.py` measures the same on as many towers as wanted.
"""

from __future__ import annotations

import numpy as np
import pytest
from planted_calibration import (
    FOIL,
    LEVELS,
    false_share,
    is_calibrated,
    null_pvalues,
    rejections,
)

STAGES = ("edge", "alignment", "ablation", "injection")


def over_towers(seeds: range, **options) -> dict[str, list[np.ndarray]]:
    towers = [null_pvalues(seed, **options) for seed in seeds]
    return {name: [found[name] for found in towers] for name in towers[0]}


def failures(found: dict[str, list[np.ndarray]]) -> dict[str, list[str]]:
    """Each test's levels that do not hold, with the measured rate."""
    wrong = {
        name: [
            f"{rejections(parts, level)[0]:.3f} at {level}"
            for level in LEVELS
            if not is_calibrated(parts, level)
        ]
        for name, parts in found.items()
    }
    return {name: each for name, each in wrong.items() if each}


@pytest.mark.slow
def test_every_test_holds_its_level_and_permuted_tokens_do_not():
    found = over_towers(range(84))
    assert all(rejections(found[name], 0.05)[2] >= 1000 for name in STAGES)
    wrong = failures(found)
    assert list(wrong) == [FOIL]
    assert len(wrong[FOIL]) == len(LEVELS)


@pytest.mark.slow
def test_edges_between_clusters_hold_their_level():
    found = over_towers(range(100, 130), destination="cluster", images=96, edges=6)
    edges = {name: found[name] for name in ("edge, moments", "edge, sampled")}
    assert not failures(edges)


def test_clusters_that_kmeans_finds_hold_their_level_too():
    options = {"groups": 6, "images": 64, "edges": 1}
    found = over_towers(range(200, 212), kmeans=True, **options)
    assert not failures({name: found[name] for name in ("edge, moments", "edge, sampled")})
    # The partition is the true one, so the tests are the same but for the clusters' names.
    groups = null_pvalues(200, **options)["edge, moments"]
    np.testing.assert_allclose(np.sort(found["edge, moments"][0]), np.sort(groups), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_false_discovery_rate_is_at_most_nominal(destination):
    shares = np.array([false_share(seed, destination=destination) for seed in range(40)])
    false, found = shares.mean(0)
    error = shares[:, 0].std(ddof=1) / len(shares) ** 0.5
    assert false <= 0.05 + 2 * error
    assert found > 0.75
