"""Planted edges are found by the ordinary pipeline, and the score of finding them is right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_calibration import traced
from sklearn.metrics import roc_auc_score

from xaikit.rankings import KEYS, score_from_fit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.testing import planted_tower, recovery_auroc

EXAMPLE = Path(__file__).parents[2] / "examples" / "06_planted_ground_truth.py"


@pytest.mark.parametrize("destination", ["token", "cluster"])
@pytest.mark.parametrize("seed", range(2))
def test_zscore_and_contrast_find_edges_of_the_default_strength(destination, seed):
    tower = planted_tower(seed=seed)
    images = tower.images(48, seed=seed)
    run = traced(tower, images)
    features = cluster(run, num_clusters=7, sample_tokens=0, seed=seed)
    truth = tower.truth(features.labels, images.groups, 7)
    found = fit(run, features, destination=destination, num_permutations=1, controls=False)
    for rank in ("zscore", "contrast"):
        scores = score_from_fit(rank, found)
        assert recovery_auroc(scores, truth, destination, tower.spec.blank_group) >= 0.99


def test_guided_clusters_find_weak_edges_no_worse_than_kmeans():
    tower = planted_tower(strength=0.25)
    images = tower.images(32)
    run, found = traced(tower, images), {}
    for method in ("kmeans", "guided"):
        more = {"method": method, "sample_tokens": 0, "holdout": 0.5}
        features = cluster(run, num_clusters=7, **more)
        truth = tower.truth(features.labels, images.groups, 7)
        for destination in ("token", "cluster"):
            fitted = fit(run, features, destination=destination, num_permutations=1, controls=False)
            scores = score_from_fit("zscore", fitted)
            area = recovery_auroc(scores, truth, destination, tower.spec.blank_group)
            found[method, destination] = area
    for destination in ("token", "cluster"):
        assert 0.5 < found["kmeans", destination] < 1.0
        assert found["guided", destination] >= found["kmeans", destination] - 0.02


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_auroc_is_that_of_scikit_learn_on_the_edges_that_count(destination):
    tower = planted_tower()
    groups = tower.images(8).groups
    # Cluster 7 is empty.
    truth = tower.truth(groups, groups, 8)
    shape = (8, tower.spec.heads, tower.spec.tokens if destination == "token" else 8)
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 6, shape)).float()
    kind = "token" if destination == "token" else "content"
    planted, echo = (getattr(truth, f"{part}_{kind}") for part in ("edge", "echo"))
    counted = ~echo
    counted[6:] = False
    if destination == "cluster":
        counted[:, :, 6:] = False
    expected = roc_auc_score(planted[counted], scores[counted])
    found = recovery_auroc(scores, truth, destination, tower.spec.blank_group)
    assert found == pytest.approx(expected)
    assert recovery_auroc(planted.float(), truth, destination, tower.spec.blank_group) == 1.0


def test_the_example_draws_and_writes_what_it_says(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("planted_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "STRENGTHS", (4.0,))
    monkeypatch.setattr(example, "IMAGES", (16,))
    monkeypatch.setattr(
        sys, "argv", ["06", "--towers", "1", "--markdown", "--out", str(tmp_path / "plot.png")]
    )
    example.main()
    table = capsys.readouterr().out
    assert table.count("| token |") == table.count("| cluster |") == len(KEYS)
    assert "| token | zscore | 1.000 |" in table
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert (tmp_path / "plot.json").exists()
