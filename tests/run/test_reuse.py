"""What makes a stage run again, and what does not."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from xaikit.artifacts.results import Circuit
from xaikit.errors import UsageError, XaikitWarning
from xaikit.images import open_images
from xaikit.run import subject
from xaikit.run.options import Options
from xaikit.run.run_all import run_all
from xaikit.stages import causal, circuit, cluster, fit, intervene, target_causal
from xaikit.towers import load_tower

SMALL = Options(
    recipe="seed",
    holdout=0.5,
    num_clusters=4,
    num_permutations=12,
    sample_tokens=500,
    top_k=5,
    top_n=3,
    max_clusters=4,
)
ALL = ["trace", "cluster", "fit", "circuit", "target-causal", "causal"]


@pytest.fixture(scope="module")
def tower():
    return load_tower("xaikit-demo", None)


def draw(folder, seed=0, count=12):
    rng = np.random.default_rng(seed)
    for i in range(count):
        path = folder / f"group-{i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def made(tower, tmp_path_factory):
    """A finished run, to be copied."""
    root = tmp_path_factory.mktemp("made")
    images = draw(root / "images")
    run_all(tower, open_images(images=images), out_dir=root / "run", layers=[2], options=quick())
    return root


def quick(**changed):
    return replace(SMALL, intervene=False, **changed)


@pytest.fixture
def place(made, tmp_path):
    """A copy of the finished run and its images."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def again(tower, place, *, layers=(2,), options=None, **changed):
    """Run again; the stages that ran."""
    images = open_images(images=changed.pop("images", place / "images"))
    runs = run_all(
        tower,
        images,
        out_dir=place / "run",
        layers=list(layers),
        options=options or quick(**changed),
    )
    return [stage for stage in ALL if stage in runs[0].seconds]


UNCHANGED = {
    "nothing": {},
    "batch size": {"batch_size": 8},
    "workers": {"workers": 1},
    "memory": {"memory": 1 << 30},
    "as many images as there are": {"max_images": 12},
}
OPTIONS = {
    "clusters": ({"num_clusters": 5}, "cluster"),
    "sampled tokens": ({"sample_tokens": 400}, "cluster"),
    "seed": ({"seed": 1}, "cluster"),
    "holdout": ({"holdout": 0.25}, "cluster"),
    "method": ({"method": "guided"}, "cluster"),
    "prefix tokens": ({"prefix": "own"}, "cluster"),
    "destination": ({"destination": "cluster"}, "fit"),
    "permutations": ({"num_permutations": 11}, "fit"),
    "null": ({"null": "moments"}, "fit"),
    "null block": ({"null_block": 3}, "fit"),
    "top k": ({"top_k": 6}, "circuit"),
    "rank": ({"rank": "contrast"}, "circuit"),
    "q-value": ({"max_qvalue": 0.5}, "circuit"),
    "bootstrap": ({"bootstrap": 3}, "circuit"),
    "top n": ({"top_n": 2}, "target-causal"),
    "fewer images": ({"max_images": 10}, "trace"),
}
AFTER = {
    "trace": ALL,
    "cluster": ALL[1:],
    "fit": ALL[2:],
    "circuit": ["circuit", "target-causal"],
    "target-causal": ["target-causal"],
    "causal": ["causal"],
}


@pytest.mark.parametrize("changed", UNCHANGED.values(), ids=UNCHANGED)
def test_what_decides_nothing_runs_nothing(tower, place, changed):
    assert again(tower, place, **changed) == []


@pytest.mark.parametrize(("changed", "first"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_runs_what_it_decides(tower, place, changed, first):
    assert again(tower, place, **changed) == AFTER[first]


def test_clusters_to_report_decide_causal_alone(tower, place):
    assert again(tower, place, max_clusters=3) == ["causal"]


@pytest.mark.parametrize(
    ("module", "first"),
    [
        (cluster, "cluster"),
        (fit, "fit"),
        (circuit, "circuit"),
        (target_causal, "target-causal"),
        (causal, "causal"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_another_revision_of_a_stage_runs_it(tower, place, monkeypatch, module, first):
    monkeypatch.setattr(module, "REVISION", 99)
    found = again(tower, place)
    # What follows has the same input, to the bit, and is kept.
    assert found == [first]


def test_another_revision_of_the_recording_runs_it(tower, place, monkeypatch):
    monkeypatch.setattr(subject, "RECORDING", 99)
    assert again(tower, place)[:2] == ["trace", "cluster"]


def test_images_of_the_same_names_and_another_content_are_others(tower, place):
    draw(place / "other", seed=1)
    assert again(tower, place, images=place / "other") == ALL


def test_one_image_changed_in_place(tower, place):
    path = place / "images" / "group-0" / "00.png"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    image = np.array(Image.open(path))
    image[0, 0] ^= 255
    Image.fromarray(image).save(path)
    assert path.read_bytes() != bytes(data)
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert again(tower, place) == ALL


def test_one_image_more(tower, place):
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(place / "images" / "group-1" / "99.png")
    assert again(tower, place) == ALL


def test_other_weights_layers_and_preprocessing(tower, place):
    assert again(load_tower("xaikit-demo", "random", seed=3), place) == ALL
    assert again(tower, place, layers=(1,)) == ALL
    other = load_tower("xaikit-demo", None, mean=(0.1, 0.2, 0.3))
    assert again(other, place, layers=(1,)) == ALL


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("trace.safetensors", "trace"),
        ("features.safetensors", "cluster"),
        ("fit.safetensors", "fit"),
        ("circuit.json", "circuit"),
        ("causal.json", "causal"),
        ("target_causal.json", "target-causal"),
    ],
)
@pytest.mark.parametrize("damage", ["removed", "cut short", "one bit flipped", "of another run"])
def test_a_file_that_is_gone_or_damaged_is_made_again(tower, place, name, stage, damage):
    path = place / "run" / name
    if damage == "removed":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "one bit flipped":
        data = bytearray(path.read_bytes())
        # A number in the middle of the JSON, or near the end of the last tensor.
        data[-40 if path.suffix == ".safetensors" else len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        found = again(tower, place, seed=5)
        assert stage in found or stage == "trace"
        shutil.copy(path, place / "other")
        again(tower, place)
        shutil.copy(place / "other", path)
    if damage in ("cut short", "one bit flipped"):
        with pytest.warns(XaikitWarning, match=f"{name} is made again"):
            found = again(tower, place)
    else:
        found = again(tower, place)
    assert found == ([stage] if damage != "of another run" or stage != "trace" else [])


def test_pictures_that_the_circuit_lists_are_drawn_again(tower, place):
    shutil.rmtree(place / "run" / "heatmaps")
    assert again(tower, place) == ["circuit"]
    pictures = Circuit.load(place / "run" / "circuit.json").heatmaps
    assert pictures
    assert all(
        (place / "run" / "heatmaps").joinpath(p.rsplit("/", 1)[-1]).exists() for p in pictures
    )


def test_a_folder_that_was_moved_goes_on(tower, place, tmp_path, monkeypatch):
    shutil.move(place / "run", place / "moved")
    monkeypatch.chdir(tmp_path)
    runs = run_all(
        tower,
        open_images(images=place / "images"),
        out_dir=place / "moved",
        layers=[2],
        options=quick(),
    )
    assert runs[0].seconds == {}
    assert sorted(runs[0].reused) == sorted(ALL)
    assert runs[0].fit.features_file == str(place / "moved" / "features.safetensors")


def test_a_direction_decides_the_circuit_and_what_follows(place):
    tower = load_tower("xaikit-demo", None, with_text=True)
    follows = AFTER["circuit"]
    assert again(tower, place, toward="top red circle") == follows
    assert again(tower, place, toward="top red circle") == []
    assert again(tower, place, toward="top red circle", labels="of no direction.txt") == []
    assert again(tower, place, toward="top red circle", against="top blue circle") == follows
    assert again(tower, place) == follows


def test_the_weights_of_the_text_tower_decide_a_direction(place):
    """Two checkpoints may share their vision tower, where a text tower alone was tuned."""
    towers = [load_tower("xaikit-demo", None, with_text=True) for _ in range(2)]
    with torch.no_grad():
        towers[1].text.model.text_projection.neg_()
    assert towers[0].weights_fingerprint == towers[1].weights_fingerprint
    for tower in towers:
        assert again(tower, place, toward="top red circle") == AFTER["circuit"]
        assert again(tower, place, toward="top red circle") == []


def test_a_run_is_not_written_among_its_images(tower, place):
    images = place / "images"
    before = sorted(images.rglob("*"))
    (place / "link").symlink_to(images)
    for out in (images, images / "xaikit-out", place / "link" / "xaikit-out"):
        with pytest.raises(UsageError, match="lies in the folder of the images"):
            run_all(tower, open_images(images=images), out_dir=out, options=quick())
    assert sorted(images.rglob("*")) == before


def test_what_is_no_objective_of_the_model_is_said_before_any_work(tower, place):
    out = place / "other"
    images = open_images(images=place / "images")
    for given, match in (({"toward": "a"}, "no text tower"), ({"objective": "margin"}, "classes")):
        with pytest.raises(UsageError, match=match):
            run_all(tower, images, out_dir=out, options=quick(**given))
    assert not out.exists()


def test_labels_count_by_their_content(tower, place):
    labels = place / "labels.txt"
    labels.write_text("a photo of a cat\na photo of a dog\n")
    live = replace(SMALL, labels=str(labels), rank="weight")
    tower = load_tower("xaikit-demo", None, with_text=True)

    def ran(options):
        runs = run_all(
            tower,
            open_images(images=place / "images"),
            out_dir=place / "run",
            layers=[2],
            options=options,
        )
        return "intervene" in runs[0].seconds

    assert ran(live)
    assert not ran(live)
    labels.write_text("a photo of a cat\na photo of a bird\n")
    assert ran(live)
    labels.rename(place / "same.txt")
    assert not ran(replace(live, labels=str(place / "same.txt")))


def test_another_revision_of_intervene_is_another_request(place, monkeypatch):
    from xaikit.run.reuse import Request

    asked = [
        Request(stage="intervene", revision=r, inputs={}, options={}).key()
        for r in (intervene.REVISION, intervene.REVISION + 1)
    ]
    assert asked[0] != asked[1]


def test_shards_and_batches_of_other_sizes_are_reused(tower, place):
    from xaikit.artifacts.storage import Storage

    sharded = quick(storage=Storage(shard_images=5), batch_size=4)
    assert "trace" in again(tower, place, options=sharded)
    assert again(tower, place, options=sharded) == []
    assert again(tower, place, options=replace(sharded, batch_size=3)) == []


def test_force_runs_everything(tower, place):
    runs = run_all(
        tower,
        open_images(images=place / "images"),
        out_dir=place / "run",
        layers=[2],
        options=quick(),
        force=True,
    )
    assert [stage for stage in ALL if stage in runs[0].seconds] == ALL
