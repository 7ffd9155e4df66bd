"""The baseline table on planted towers, where what must come out is known."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace as Some

import pytest
import torch
from conftest import make_trace
from planted_calibration import traced, true_groups
from planted_run import Pictures

from xaikit.artifacts.studies import Baselines
from xaikit.errors import UsageError
from xaikit.stages import baselines as module
from xaikit.stages.baselines import HELD_OUT, baselines, random_added, random_weights
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.testing import planted_tower
from xaikit.towers import wrap_tower

PREPARED = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.2] * 3, "mode": "squash"}


@lru_cache(maxsize=2)
def planted(edges: int):
    tower = planted_tower(token_edges=edges, content_edges=edges, grid=4)
    images = tower.images(80)
    run = traced(tower, images)
    return tower, images, run, true_groups(run, images, 7, seed=0)


def rows(found: Baselines) -> dict:
    return {(row["prediction"], row["destination"]): row for row in found.rows}


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_clusters_add_to_position_exactly_where_edges_are(where):
    with_edges, without = (
        rows(baselines(*planted(edges)[2:], draws=5))[("position + clusters", where)]["added"]
        for edges in (4, 0)
    )
    assert with_edges > 0.04
    assert abs(without) < 0.02


@pytest.mark.parametrize("where", ["token", "cluster"])
def test_rows_agree_with_the_fit(where):
    _, _, run, features = planted(4)
    found = rows(baselines(run, features, draws=5, seed=3))
    fitted = fit(run, features, destination=where, num_permutations=1, seed=3)
    own = fitted.heldout_r2
    assert found[("mean", None)]["r2"] == pytest.approx(own["r2_mean"], abs=1e-6)
    assert found[("position", None)]["r2"] == pytest.approx(own["r2_position"], abs=1e-6)
    assert found[("clusters", where)]["r2"] == pytest.approx(own["r2"], abs=1e-6)
    full = found[("position + clusters", where)]
    assert full["r2"] == pytest.approx(own["r2_position_cluster"], abs=1e-6)
    shuffled = found[("position + shuffled clusters", where)]
    # The fit shuffles within blocks of images: other draws of the same null.
    spread = shuffled["added_sd"] + fitted.controls["shuffled_added_sd"]
    assert abs(shuffled["added"] - fitted.controls["shuffled_added"]) < 5 * spread
    assert shuffled["added"] + 5 * shuffled["added_sd"] < full["added"]
    places = found[("position + position clusters", where)]
    assert places["added"] == pytest.approx(0.0, abs=1e-9)


def test_random_weights_are_traced_clustered_and_scored_on_the_same_images():
    tower, images, run, features = planted(4)
    source = Pictures(images)
    features.provenance.options.update(num_clusters=7, sample_tokens=0, seed=0)
    torch.manual_seed(0)
    module = planted_tower(token_edges=0, content_edges=0, grid=4, position=3.0, seed=9).module
    untrained = wrap_tower(module, model="planted", preprocess=None)
    random = random_weights(untrained, source, run, features)
    assert untrained.preprocess.size == tuple(run.info.preprocess["size"])
    assert random[0].images == run.images
    assert random[1].heldout == features.heldout
    found = rows(baselines(run, features, random=random, draws=2))
    control = found[("random weights: position + clusters", "token")]
    assert control["added"] < 0.02 < found[("position + clusters", "token")]["added"]
    assert random_added(random, "token")["random_weights_added"] == control["added"]
    other = Pictures(tower.images(80, seed=4))
    other.ids = [f"other-{name}" for name in other.ids]
    with pytest.raises(UsageError, match="`control=random-weights`"):
        random_weights(untrained, other, run, features)


def test_an_untrained_model_is_traced_and_clustered_as_the_run_was(monkeypatch):
    """On as many images, prepared alike, with every option that decides the clusters."""

    class Run(Some):
        def __len__(self):
            return len(self.images)

    run = Run(layer=4, next_layer=5, images=["a", "b", "c"], info=Some(preprocess=PREPARED))
    options = {"num_clusters": 7, "sample_tokens": 9, "seed": 5, "holdout": 0.25}
    options |= {"method": "guided", "prefix": "mixed", "half": 1, "start_seed": 4, "measured": True}
    features, tower, asked = Some(provenance=Some(options=options)), Some(preprocess=None), {}

    def traced_again(*given, **more):
        asked["trace"] = (given, more)
        return [Some(images=asked["images"])]

    monkeypatch.setattr(module, "trace_layers", traced_again)
    monkeypatch.setattr(module, "cluster", lambda _own, **more: asked.update(cluster=more))
    asked["images"] = ["a", "b", "c"]
    random_weights(tower, "source", run, features, batch_size=6, workers=2)
    given, more = asked["trace"]
    assert given == (tower, "source", [(4, 5)])
    assert (more["max_images"], more["batch_size"], more["workers"]) == (3, 6, 2)
    assert (tower.preprocess.size, tower.preprocess.mode) == ((32, 32), PREPARED["mode"])
    del options["measured"]
    del asked["cluster"]["progress"]
    assert asked["cluster"] == options
    asked["images"] = ["a", "b", "d"]
    with pytest.raises(UsageError, match="the images are not those of the trace"):
        random_weights(tower, "source", run, features)


def test_the_table_is_written_and_read(tmp_path):
    found = baselines(*planted(4)[2:], draws=2)
    found.save(tmp_path / "baselines.json")
    assert Baselines.load(tmp_path / "baselines.json") == found


def noise(seed: int, holdout: float = 0.25):
    """Twelve images of noise, a fourth of them held out."""
    logits = torch.randn(12, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    trace = make_trace(logits)
    return trace, cluster(trace, num_clusters=3, holdout=holdout)


def test_controls_are_drawn_as_asked_and_each_stands_in_its_row(monkeypatch):
    trace, features = noise(0)
    asked, known = {}, ("shuffled_added", "shuffled_added_sd", "position_added", "position_r2")
    given = {"token": dict(zip(known, (0.1, 0.2, 0.3, 0.4), strict=True))}
    given["cluster"] = dict(zip(known, (0.5, 0.6, 0.7, 0.8), strict=True))

    def controls(*_parts, **more):
        asked.update(more)
        return given

    monkeypatch.setattr(module, "control_scores", controls)
    found = rows(baselines(trace, features, draws=7, seed=3))
    assert asked == {"prefix": 1, "grid": [1, 4], "draws": 7, "seed": 3}
    base = found[("position", None)]["r2"]
    for where, own in given.items():
        shuffled = found[("position + shuffled clusters", where)]
        assert shuffled["r2"] == pytest.approx(base + own["shuffled_added"])
        assert shuffled["added"] == own["shuffled_added"]
        assert shuffled["added_sd"] == own["shuffled_added_sd"]
        places = found[("position + position clusters", where)]
        assert places["r2"] == pytest.approx(base + own["position_added"])
        assert places["added"] == own["position_added"]
        assert found[("position clusters", where)]["r2"] == own["position_r2"]


def test_an_untrained_model_s_rows_and_controls_are_those_of_its_own_table():
    random = noise(1)
    alone, found = rows(baselines(*random, draws=1)), rows(baselines(*noise(0), random=random))
    assert found[("random weights: position", None)]["r2"] == alone[("position", None)]["r2"]
    for where in ("token", "cluster"):
        name, own = ("random weights: position + clusters", where), ("position + clusters", where)
        assert [found[name][field] for field in ("r2", "added")] == [
            alone[own][field] for field in ("r2", "added")
        ]
        controls = random_added(random, where)
        assert controls["random_weights_added"] == alone[own]["added"]
        assert controls["random_weights_r2"] == alone[("clusters", where)]["r2"]
    assert random_added(random, "token") != random_added(random, "cluster")


def test_a_table_says_what_it_is_of():
    trace, features = noise(0)
    trace.path = Path("of/trace.safetensors")
    found = baselines(trace, features, draws=2, seed=4)
    assert (found.num_images, found.num_test_images, found.holdout) == (9, 3, 0.25)
    assert (found.trace_file, found.num_clusters) == ("of/trace.safetensors", 3)
    assert (found.draws, found.seed) == (2, 4)
    assert found.provenance.options == {"draws": 2, "seed": 4, "random_weights": False}
    again = baselines(trace, features, random=noise(1), draws=2)
    assert again.provenance.options["random_weights"]
    # Half of the images are kept back unless told otherwise.
    assert HELD_OUT.holdout == 0.5
