"""The baseline table on planted towers, where what must come out is known."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace as Some

import pytest
import torch
from planted_calibration import traced, true_groups
from planted_run import Pictures

from xaikit.artifacts.studies import Baselines
from xaikit.errors import UsageError
from xaikit.stages import baselines as module
from xaikit.stages.baselines import baselines, random_added, random_weights
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
