"""Stored and streamed runs are the same bytes, and streamed ones go on where they stopped."""

from __future__ import annotations

from types import SimpleNamespace as Some

import pytest
import torch
from PIL import Image

from xaikit.errors import XaikitError
from xaikit.images import Skipped, SkippedImages, open_images
from xaikit.images.decoding import BadImage
from xaikit.images.scenes import SceneSource
from xaikit.images.transform import pixels_for
from xaikit.passes import checkpoint
from xaikit.passes.memory import sums_bytes
from xaikit.passes.pair_sums import PairSums
from xaikit.run.options import Options
from xaikit.run.run_all import run_all
from xaikit.run.stream import _share_skipped, memory_groups, plan_of
from xaikit.run.subject import Subject
from xaikit.stages.cluster import ClusterOptions
from xaikit.stages.intervene import intervene
from xaikit.statistics.block_null import EdgeShape
from xaikit.towers import AttentionCall, capture, load_tower

IMAGES, PAIRS = 44, [(1, 2), (2, 3)]
LAYER = 3
BOTH = ("features.safetensors", "fit.safetensors", "circuit.json", "causal.json")
SMALL = {
    "recipe": "seed",
    # None of the defaults: what forgets the seed has another one.
    "seed": 3,
    "holdout": 0.5,
    "num_clusters": 6,
    "sample_tokens": 1000,
    "num_permutations": 20,
    "null_block": 8,
    "batch_size": 16,
    "intervene": False,
    "top_n": 4,
}


@pytest.fixture(scope="module")
def tower():
    return load_tower("xaikit-demo", None)


class Spoiled:
    """The scenes, some of which cannot be decoded."""

    def __init__(self, source: SceneSource, bad: set[int]) -> None:
        self._source, self._bad = source, bad
        self.ids = source.ids
        self.groups = [f"group {i % 3}" for i in range(len(source))]

    def __len__(self) -> int:
        return len(self._source)

    def describe(self):
        return self._source.describe()

    def load(self, i: int) -> Image.Image:
        if i in self._bad:
            raise BadImage(self.ids[i], "spoiled")
        return self._source.load(i)


@pytest.fixture
def source():
    return Spoiled(SceneSource(IMAGES, 0), {0, 1, 5, 17, 18, 19, 20, 43})


def run(tower, source, folder, **changed):
    options = Options(**{**SMALL, **changed})
    return run_all(tower, source, out_dir=folder, layers=[1, 2], options=options)


def artefacts(folder):
    names = (*BOTH, "target_causal.json")
    return {
        f"{layer}/{name}": (folder / layer / name).read_bytes()
        for layer in ("layer_1", "layer_2")
        for name in names
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"destination": "cluster", "sample_tokens": 0},
        {"holdout": 0.0, "null_block": 0},
        {"destination": "cluster", "null_block": 0, "batch_size": 64, "max_images": 30},
        {"method": "guided", "prefix": "own"},
        {"method": "guided", "prefix": "own", "destination": "cluster", "rank": "reach"},
    ],
    ids=["token", "cluster", "exact moments", "fewer images", "guided", "guided cluster"],
)
def test_stored_and_streamed_runs_give_the_same_bytes(tower, source, tmp_path, options):
    stored = run(tower, source, tmp_path / "stored", **options)
    streamed = run(tower, source, tmp_path / "streamed", stream=True, **options)
    one, other = artefacts(tmp_path / "stored"), artefacts(tmp_path / "streamed")
    assert [name for name in one if one[name] != other[name]] == []
    assert stored[0].info == streamed[0].info
    assert streamed[0].trace is None
    assert {item[0] for item in stored[0].info.skipped} <= {source.ids[i] for i in source._bad}
    assert stored[0].info.skipped


def test_results_do_not_depend_on_the_batch_size(tower, source, tmp_path):
    for size in (8, 64):
        run(tower, source, tmp_path / str(size), stream=True, batch_size=size)
    assert artefacts(tmp_path / "8") == artefacts(tmp_path / "64")


def test_a_memory_that_is_too_small_for_all_pairs_takes_them_in_turns(tower, source, tmp_path):
    each = sums_bytes(EdgeShape(6, 4, 65, False), 2, SMALL["null_block"], True)
    subject = Subject(
        tower=tower, source=source, options=Options(**SMALL, memory=2 * each).settled()
    )
    assert len(memory_groups(subject, PAIRS)) == 2
    run(tower, source, tmp_path / "whole", stream=True)
    run(tower, source, tmp_path / "turns", stream=True, memory=2 * each)
    assert artefacts(tmp_path / "whole") == artefacts(tmp_path / "turns")
    with pytest.raises(XaikitError, match=r"sums of one pair of layers take .* GiB"):
        run(tower, source, tmp_path / "none", stream=True, memory=each)


class Killed(Exception):  # noqa: N818
    """As if the machine went away."""


@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_a_killed_run_goes_on_to_the_same_bytes(tower, source, tmp_path, monkeypatch, destination):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 0.0)
    chosen = {"destination": destination, "batch_size": 8, "stream": True}
    run(tower, source, tmp_path / "whole", **chosen)
    attention = PairSums.attention
    seen = []

    def failing(self, block, found):
        seen.append(block.planned.number)
        if len(seen) == 6:
            raise Killed
        attention(self, block, found)

    monkeypatch.setattr(PairSums, "attention", failing)
    with pytest.raises(Killed):
        run(tower, source, tmp_path / "resumed", **chosen)
    kept = list((tmp_path / "resumed" / "stream-state").iterdir())
    assert kept
    stranger = tmp_path / "resumed" / "stream-state" / "notes.txt"
    stranger.write_text("mine")
    before = len(seen)
    run(tower, source, tmp_path / "resumed", **chosen)
    # Two pairs a block: the two whole passes before the one that failed were kept.
    assert len(seen) - before < before + 8
    assert artefacts(tmp_path / "whole") == artefacts(tmp_path / "resumed")
    # Only what the run made is its to delete.
    assert [each.name for each in stranger.parent.iterdir()] == ["notes.txt"]


def test_an_image_that_was_left_out_is_an_error_where_that_is_asked_for(tower, source, tmp_path):
    run(tower, source, tmp_path)
    with pytest.raises(XaikitError, match="demo/0/000000 cannot be used: spoiled"):
        run(tower, source, tmp_path, strict=True)


def test_no_usable_image_is_one_line(tower, tmp_path):
    nothing = Spoiled(SceneSource(IMAGES, 0), set(range(IMAGES)))
    with pytest.raises(XaikitError, match="can be used") as caught:
        run(tower, nothing, tmp_path, stream=True)
    assert "\n" not in str(caught.value)


def spoil(monkeypatch, tower, source, image, head):
    """Make one query of one image no number, wherever that layer is run."""
    pixels = pixels_for(source.load(image), tower.preprocess)[None]
    queries: list[torch.Tensor] = []
    capture(tower, pixels, attention={LAYER: lambda call: queries.append(call.query.clone())})
    original = AttentionCall.__init__

    def broken(self, query, *rest, **options):
        rows = (query - queries[0]).abs().amax((1, 2, 3)) < 1e-3
        query = query.clone()
        query[rows, head, 5, 0] = torch.nan
        original(self, query, *rest, **options)

    monkeypatch.setattr(AttentionCall, "__init__", broken)
    return f"layer {LAYER} of image {source.ids[image]}, head {head} is not finite: check the weig"


@pytest.mark.parametrize("stream", [False, True])
def test_a_logit_that_is_not_finite_is_named(tower, tmp_path, monkeypatch, stream):
    source = open_images(demo=True, max_images=16)
    said = spoil(monkeypatch, tower, source, 11, 1)
    with pytest.raises(XaikitError, match=said):
        run(tower, source, tmp_path, stream=stream)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_first_process_knows_what_the_others_could_not_use_once(tower):
    def of(*records):
        return Subject(
            tower=tower, source=None, options=Options(), skipped=SkippedImages([*records])
        )

    both, own, theirs = (Skipped(name, "torn", at) for at, name in enumerate("abc"))
    first, second = of(both, own), of(both, theirs)
    packed = []
    second.world = Some(gather=lambda part: packed.append(part) or [])
    _share_skipped(second)
    first.world = Some(gather=lambda part: [part, *packed])
    _share_skipped(first)
    assert first.skipped.records == [both, own, theirs]
    assert second.skipped.records == [both, theirs]


def test_more_tokens_than_can_be_clustered_are_refused_before_a_pass(tower, monkeypatch):
    asked = []
    monkeypatch.setattr(ClusterOptions, "check_rows", lambda self, rows: asked.append(rows))
    plan_of(Subject(tower=tower, source=SceneSource(5, 0), options=Options().settled()))
    assert asked == [5 * tower.info.tokens]


def test_a_logit_that_is_not_finite_is_named_where_the_model_is_edited(
    tower, tmp_path, monkeypatch
):
    source = open_images(demo=True, max_images=16)
    found = run(tower, source, tmp_path, stream=False)[1]
    said = spoil(monkeypatch, tower, source, found.features.heldout[-1], 1)
    with pytest.raises(XaikitError, match=said):
        intervene(tower, source, found.features, found.fit, trace=found.trace)


def test_a_streamed_fit_is_of_the_same_images_as_its_labels(tower, source, tmp_path):
    found = run(tower, source, tmp_path, stream=True)[0]
    used = [i for i in range(IMAGES) if i not in source._bad]
    assert found.info.images == [source.ids[i] for i in used]
    assert sorted(found.features.discovery + found.features.heldout) == list(range(len(used)))
    assert torch.equal(
        found.features.cluster_sizes,
        torch.bincount(found.features.labels.reshape(-1), minlength=6),
    )
