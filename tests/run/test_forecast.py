"""`run-all --plan` says what will be needed, and needs nothing itself."""

from __future__ import annotations

import json
from types import SimpleNamespace as Some

import pytest
from command_line import run

from xaikit.artifacts.storage import Storage
from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.run import forecast as module
from xaikit.run.forecast import Forecast, Pass, disk_bytes, forecast
from xaikit.run.options import Options
from xaikit.run.run_all import planned, run_all
from xaikit.run.subject import Subject
from xaikit.stages.intervene import InterveneOptions
from xaikit.towers import load_tower


@pytest.fixture(scope="module")
def tower():
    return load_tower("xaikit-demo", None)


def test_more_clusters_layers_and_images_need_more(tower):
    def of(images=40, layers=(1,), **options):
        chosen = Options(stream=True, **options)
        return planned(tower, SceneSource(images, 0), layers=layers, options=chosen)

    small = of()
    assert small.memory < of(num_clusters=64).memory
    assert small.memory < of(layers=(1, 2)).memory
    assert small.disk < of(images=400).disk
    assert small.seconds > 0
    # The sums of a streamed run do not grow with the images; their labels do, a byte a token.
    assert of(images=400).memory - small.memory == 360 * 65


def test_pairs_that_do_not_fit_together_are_read_in_turns(tower):
    whole = planned(tower, SceneSource(40, 0), layers=[1, 2, 3], options=Options(stream=True))
    turns = planned(
        tower,
        SceneSource(40, 0),
        layers=[1, 2, 3],
        options=Options(stream=True, memory=whole.memory // 2),
    )
    assert turns.passes[0].images > whole.passes[0].images
    assert turns.memory < whole.memory
    with pytest.raises(UsageError, match="may be used"):
        planned(tower, SceneSource(40, 0), options=Options(stream=True, memory=1000))


@pytest.mark.parametrize("stream", [False, True])
def test_permutations_that_no_memory_holds_are_refused_before_an_image_is_read(
    tower, tmp_path, stream
):
    options = Options(stream=stream, num_permutations=10**9, memory=1 << 30)
    source = SceneSource(40, 0)
    with pytest.raises(UsageError, match=r"take [\d,.]+ GiB, 1\.0 may be used"):
        planned(tower, source, options=options)
    with pytest.raises(UsageError, match=r"take [\d,.]+ GiB, 1\.0 may be used"):
        run_all(tower, source, out_dir=tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_a_direction_takes_passes_of_its_own():
    tower = load_tower("xaikit-demo", None, with_text=True)
    found = planned(tower, SceneSource(8, 0), options=Options(stream=True, toward="a circle"))
    (sides,) = (each for each in found.passes if "for and against" in each.what)
    assert sides.backward == 5.0


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_the_command_prints_it_and_writes_nothing(tmp_path, capsys, monkeypatch, stream):
    monkeypatch.chdir(tmp_path)
    assert run("run-all", "--plan", "--max-images", "24", "--json", "-q", *stream) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 24
    assert found["forward_passes"] > 24
    assert run("run-all", "--plan", "--max-images", "24", "-q", *stream) == 0
    said = capsys.readouterr().out
    assert "memory beside the model" in said
    assert "24 images, 1 pair of layers" in said
    assert ": 0 GiB" not in said
    assert ": 0.0" not in said
    assert "backward" in said
    assert list(tmp_path.iterdir()) == []


def few(o):
    """A few live edits: 2 rankings at 3 shares, 4 draws at 2, 5 edges beside half of 6 others."""
    return o.live_as(
        InterveneOptions,
        rankings=("reach", "energy"),
        shares=(0.1, 0.5, 1.0),
        band_shares=(0.1, 0.5),
        draws=4,
        edges=5,
        edge_draws=6,
        max_images=8,
    )


@pytest.fixture
def simple(monkeypatch):
    """Sums of a million bytes, draws of a thousand, two seconds an image."""
    monkeypatch.setattr(module, "sums_bytes", lambda shape, parts, *_: 10**6 * parts)
    monkeypatch.setattr(module, "draws_bytes", lambda shape, draws: 10**3)
    monkeypatch.setattr(module, "memory_groups", lambda subject, pairs: [pairs[:2], pairs[2:]])
    monkeypatch.setattr(module, "_image_seconds", lambda subject: 2.0)
    monkeypatch.setattr(module, "quick_options", few)


def forecast_of(tower, images=40, pairs=((0, 1), (1, 2), (2, 3)), **options):
    chosen = Options(**{"intervene": False, "rank": "energy", **options}).settled()
    return forecast(Subject(tower=tower, source=SceneSource(images, 0), options=chosen), pairs)


@pytest.mark.usefixtures("simple")
@pytest.mark.parametrize(("clusters", "size"), [(256, 1), (257, 2)])
def test_memory_is_of_the_sums_and_draws_that_are_there_together_and_of_every_label(
    tower, clusters, size
):
    labels = 3 * 40 * tower.info.tokens * size
    given = {"stream": True, "num_clusters": clusters, "method": "kmeans"}
    held = forecast_of(tower, holdout=0.5, **given)
    assert held.memory == 2 * 2 * 10**6 + 2 * 10**3 + labels
    assert forecast_of(tower, holdout=0.0, **given).memory == 2 * 10**6 + 2 * 10**3 + labels
    # Draws take at most a quarter, and those of one pair in any case.
    for memory, draws in ((8000, 2000), (7999, 1000), (4, 1000)):
        found = forecast_of(tower, holdout=0.5, memory=memory, **given)
        assert (found.memory_budget, found.memory) == (memory, 2 * 2 * 10**6 + draws + labels)
    # A trace is fitted layer by layer.
    stored = forecast_of(tower, holdout=0.5, **{**given, "stream": False})
    assert stored.memory == 2 * 10**6 + 10**3 + labels


@pytest.mark.usefixtures("simple")
def test_every_pass_over_the_images_is_counted_as_often_as_it_is_made(tower):
    def passes(images=40, **options):
        found = forecast_of(tower, images, holdout=0.25, **options)
        return {each.what: (each.images, each.forward, each.backward) for each in found.passes}

    streamed = {
        "learn clusters and means": (30 * 2, 1.0, 0.0),
        "labels, sums and null": (40 * 2, 1.5, 0.0),
        "test the circuit's edges": (10, 1.0, 0.0),
    }
    assert passes(stream=True, method="kmeans") == streamed
    guided = {"moves of the embedding": (30, 1.0, 0.5)}
    learnt = {"learn clusters and means": (30 * 2, 2.0, 0.0)}
    assert passes(stream=True, method="guided") == streamed | learnt | guided
    assert passes(method="kmeans") == {"trace": (40, 1.0, 0.0)}
    assert passes(method="guided") == {"trace": (40, 1.0, 0.0)} | guided
    many = passes(images=1200, stream=True, method="kmeans")
    assert many["test the circuit's edges"] == (256, 1.0, 0.0)
    # 2 · 3 points, 4 · 2 of the band, 5 edges beside 3 others each, two of each cluster.
    edits = 6 + 8 + 5 * 4 + 2 * 7
    live = passes(method="kmeans", rank="reach", intervene=True, num_clusters=7)
    assert live["rank by reach"] == (40 * 3, 1.0, 1.0)
    assert live["live edits"] == (8 * 3, 0.5 * edits, 0.0)
    few_images = passes(images=4, method="kmeans", intervene=True, num_clusters=7)
    assert few_images["live edits"][0] == 4 * 3
    assert passes(images=900, rank="reach")["rank by reach"][0] == 256 * 3


@pytest.mark.usefixtures("simple")
def test_a_backward_pass_takes_the_time_of_two(tower):
    found = forecast_of(tower, holdout=0.25, method="guided")
    assert found.seconds == 2.0 * (40 * 1.0 + 30 * (1.0 + 2 * 0.5))
    told = found.to_dict()
    assert (told["forward_passes"], told["backward_passes"]) == (40 + 30, 15)
    empty = Forecast(
        images=1,
        pairs=1,
        memory=1,
        memory_budget=1,
        disk=1,
        passes=(Pass(what="x", images=3, forward=2.0, backward=4.0),),
        seconds=1.0,
    )
    assert (empty.to_dict()["forward_passes"], empty.to_dict()["backward_passes"]) == (6, 12)


@pytest.mark.parametrize("stream", [False, True])
def test_disk_is_of_labels_as_they_are_written_and_of_traces_where_they_are_kept(tower, stream):
    storage = Storage(dtype="float16", packed_gates=True)
    options = Options(stream=stream, storage=storage)
    subject = Subject(tower=tower, source=SceneSource(40, 0), options=options)
    labels = 8 * 40 * tower.info.tokens
    image = storage.image_bytes(subject.infos([(0, 1)])[0, 1])
    assert image > 1000
    assert disk_bytes(subject, 3) == 3 * (labels + (0 if stream else 40 * image))


def test_the_time_of_an_image_is_its_share_of_a_batch(monkeypatch):
    now, ran = [0.0], []

    def outputs(pixels):
        ran.append(tuple(pixels.shape))
        now[0] += 0.5 * len(pixels)
        return Some(embedding=pixels)

    tower = Some(info=Some(image_size=(6, 4)), outputs=outputs)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    options = Some(batch_size=8)
    assert module._image_seconds(Some(tower=tower, options=options, candidates=40)) == 0.5
    # The first one warms up.
    assert ran == [(1, 3, 6, 4), (8, 3, 6, 4)]
