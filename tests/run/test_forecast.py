"""`run-all --plan` says what will be needed, and needs nothing itself."""

from __future__ import annotations

import json

import pytest
from command_line import run

from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.run.options import Options
from xaikit.run.run_all import planned
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
