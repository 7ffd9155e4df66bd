"""Streaming against the stored route, and runs that are interrupted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from xaikit.artifacts.files import read_tensors
from xaikit.errors import XaikitError
from xaikit.images.decoding import BadImage
from xaikit.images.scenes import SceneSource
from xaikit.passes.plan import StreamOptions, make_plan
from xaikit.passes.sums import StreamSums
from xaikit.run.stream import stream
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

IMAGES, CLUSTERS = 44, 6
PAIRS = [(1, 2), (2, 3)]
OPTIONS = {"num_clusters": CLUSTERS, "sample_tokens": 1000, "num_permutations": 20}


@pytest.fixture(scope="module")
def tower():
    return load_tower("xaikit-demo", None)


@pytest.fixture(scope="module")
def source():
    return SceneSource(IMAGES, 0)


@pytest.fixture(scope="module")
def traces(tower, source):
    return trace_layers(tower, source, PAIRS, batch_size=16)


def options(**changed) -> StreamOptions:
    return StreamOptions(**{**OPTIONS, "null_block": 8, "batch_size": 16, **changed})


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(
        torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance, check_dtype=False
    )


@pytest.mark.parametrize(
    ("destination", "holdout", "sample"),
    [("token", 0.5, 1000), ("token", 0.0, 0), ("cluster", 0.5, 1000), ("cluster", 0.25, 0)],
)
def test_streaming_gives_the_stored_route_s_results(
    tower, source, traces, destination, holdout, sample
):
    chosen = {**OPTIONS, "sample_tokens": sample}
    found = stream(
        tower,
        source,
        PAIRS,
        options=options(destination=destination, holdout=holdout, sample_tokens=sample),
    )
    for trace, streamed in zip(traces, found, strict=True):
        permutations = chosen["num_permutations"]
        features = cluster(
            trace, num_clusters=CLUSTERS, sample_tokens=sample, holdout=holdout, seed=0
        )
        stored = fit(
            trace,
            features,
            destination=destination,
            num_permutations=permutations,
            null_block=8,
            controls=False,
        )
        assert streamed.info.identity == trace.identity
        assert torch.equal(streamed.features.labels, features.labels)
        assert torch.equal(streamed.features.centroids, features.centroids)
        assert streamed.features.discovery == features.discovery
        assert streamed.features.heldout == features.heldout
        made = streamed.fit
        assert torch.equal(made.counts, stored.counts)
        for name in ("prototypes", "contrast", "position_mean", "token_norms", "mse", "r2"):
            close(getattr(made, name), getattr(stored, name))
        for name in ("r2_mean", "r2_position", "r2_position_cluster"):
            close(getattr(made, name), getattr(stored, name))
        for name in ("edge_zscores", "discovery_zscores", "null_ablation", "null_injection"):
            close(getattr(made, name), getattr(stored, name), 1e-3)
        for name in ("test_ablation", "test_injection"):
            close(getattr(made, name), getattr(stored, name), 1e-4)
        if destination == "token" or sample == 0:
            close(made.energy, stored.energy, 1e-4)
        assert made.heldout_r2.keys() == stored.heldout_r2.keys()
        for name, value in stored.heldout_r2.items():
            close(made.heldout_r2[name], value)
        assert made.num_null_images == stored.num_null_images > 0


def test_results_do_not_depend_on_the_batch_size(tower, source):
    small = stream(tower, source, PAIRS[:1], options=options(batch_size=8))[0]
    large = stream(tower, source, PAIRS[:1], options=options(batch_size=64))[0]
    assert torch.equal(small.features.labels, large.features.labels)
    close(small.fit.edge_zscores, large.fit.edge_zscores, 1e-3)
    close(small.fit.prototypes, large.fit.prototypes)


class Spoiled:
    """The scenes, some of which cannot be decoded."""

    def __init__(self, source: SceneSource, bad: set[int]) -> None:
        self._source, self._bad = source, bad
        self.ids, self.groups = source.ids, source.groups

    def __len__(self) -> int:
        return len(self._source)

    def describe(self):
        return self._source.describe()

    def load(self, i: int) -> Image.Image:
        if i in self._bad:
            raise BadImage(self.ids[i], "spoiled")
        return self._source.load(i)


def test_unusable_images_are_left_out_and_named(tower, source):
    bad = {0, 1, 5, 17, 18, 19, 20, 43}
    skipped_of = Spoiled(source, bad)
    found = stream(tower, skipped_of, PAIRS[:1], options=options())[0]
    used = [i for i in range(IMAGES) if i not in bad]
    assert found.info.images == [source.ids[i] for i in used]
    assert found.info.skipped_count == len(bad)
    assert {item[0] for item in found.info.skipped} == {source.ids[i] for i in bad}
    assert sorted(found.features.discovery + found.features.heldout) == list(range(len(used)))
    # The labels are of the right images: those that a run on each image alone gives.
    trace = trace_layers(tower, skipped_of, PAIRS[:1], batch_size=16)[0]
    from xaikit.statistics.kmeans import assign

    gates = trace.ffn_gate_l.reshape(-1, trace.info.ffn_width).numpy()
    counts = found.features.centroids.sum(1).numpy() > 0
    expected = assign(gates, found.features.centroids.numpy(), counts.astype(int))
    assert np.array_equal(found.features.labels.reshape(-1).numpy(), expected)
    with pytest.raises(
        XaikitError, match=r"none of the 22 images .* first is demo/0/000000: spoiled"
    ):
        stream(tower, Spoiled(source, set(range(IMAGES))), PAIRS[:1], options=options())


class Killed(Exception):  # noqa: N818
    """As if the machine went away."""


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_a_killed_run_goes_on_to_the_same_bits(tower, source, tmp_path, monkeypatch, destination):
    chosen = options(destination=destination, batch_size=8, checkpoint_seconds=0.0)
    bad = Spoiled(source, {3, 30})
    whole = stream(tower, bad, PAIRS, options=chosen)
    add = StreamSums._add
    passes = []

    def failing(self, group, images, pixels):
        passes.append(group)
        if len(passes) == 4:
            raise Killed
        add(self, group, images, pixels)

    monkeypatch.setattr(StreamSums, "_add", failing)
    with pytest.raises(Killed):
        stream(tower, bad, PAIRS, options=chosen, scratch=tmp_path / "state")
    assert (tmp_path / "state").exists()
    resumed = stream(tower, bad, PAIRS, options=chosen, scratch=tmp_path / "state")
    # Three passes were kept, so the second run starts with the one that failed.
    assert passes[4] == passes[3] == 3
    assert not (tmp_path / "state").exists()
    for one, other in zip(whole, resumed, strict=True):
        assert one.info == other.info
        for made, again in ((one.features, other.features), (one.fit, other.fit)):
            assert made.identity == again.identity
            for name, tensor in made._tensors().items():
                assert tensor.numpy().tobytes() == getattr(again, name).numpy().tobytes(), name


def test_checkpoints_of_another_run_are_not_used(tower, source, tmp_path, monkeypatch):
    chosen = options(batch_size=8, checkpoint_seconds=0.0)
    monkeypatch.setattr("xaikit.run.stream.shutil.rmtree", lambda *_, **__: None)
    stream(tower, source, PAIRS[:1], options=chosen, scratch=tmp_path)
    fields, _ = read_tensors(tmp_path / "sums-0-of-1.safetensors", "stream")
    assert fields["groups_done"] == 6
    other = options(batch_size=8, seed=1)
    fresh = stream(tower, source, PAIRS[:1], options=other)[0]
    found = stream(tower, source, PAIRS[:1], options=other, scratch=tmp_path)[0]
    assert torch.equal(found.features.labels, fresh.features.labels)
    assert torch.equal(found.fit.prototypes, fresh.fit.prototypes)


def test_blocks_cover_every_image_once_and_do_not_depend_on_batches(source):
    plan = make_plan(source, 65, options())
    seen = np.concatenate([block.images for block in plan.blocks])
    assert sorted(seen.tolist()) == list(range(IMAGES))
    assert max(len(block.images) for block in plan.blocks) <= 8
    again = make_plan(source, 65, options(batch_size=64))
    assert all(
        np.array_equal(a.images, b.images) for a, b in zip(plan.blocks, again.blocks, strict=True)
    )


def test_a_logit_that_is_not_finite_ends_the_run(tower, source, monkeypatch):
    from xaikit.towers import AttentionCall

    original = AttentionCall.logits_of
    monkeypatch.setattr(
        AttentionCall, "logits_of", lambda self, *of: original(self, *of) * float("inf")
    )
    with pytest.raises(XaikitError, match="attention logits of layer 2 are not finite"):
        stream(tower, source, PAIRS[:1], options=options())


def test_artefacts_read_back(tower, source, tmp_path):
    from xaikit.artifacts.tensors import Features, Fit

    found = stream(tower, source, PAIRS[:1], options=options())[0]
    found.features.save(tmp_path / "features.safetensors")
    found.fit.save(tmp_path / "fit.safetensors")
    assert Features.load(tmp_path / "features.safetensors").identity == found.features.identity
    assert Fit.load(tmp_path / "fit.safetensors").num_null_images == found.fit.num_null_images
