from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError, XaikitError
from xaikit.images import pipeline
from xaikit.images.decoding import BadImage
from xaikit.images.pipeline import SkippedImages, iter_batches
from xaikit.images.transform import framed, pixels_for

PREPROCESS = Preprocess(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Plates:
    """Plain pictures of brightness `i`; some are bad, some are slow."""

    groups = None

    def __init__(self, count, bad=(), slow=(), limit=None):
        self.ids = [f"plate{i}" for i in range(count)]
        self.bad, self.slow, self.limit = set(bad), set(slow), limit
        self.loaded: list[int] = []
        self.threads: set[str] = set()

    def __len__(self):
        return len(self.ids)

    def describe(self):
        return {}

    def load(self, i):
        self.loaded.append(i)
        self.threads.add(threading.current_thread().name)
        if i in self.slow:
            time.sleep(0.05)
        if i in self.bad:
            raise BadImage(self.ids[i], "cracked")
        return Image.new("RGB", (9, 11), (i, i, i))


def batches(source, **options):
    return list(iter_batches(source, PREPROCESS, **{"batch_size": 4, "workers": 3, **options}))


def indices(got):
    return [batch.indices for batch in got]


def test_order_is_kept_whatever_the_speed():
    source = Plates(23, slow=[0, 1, 5, 8, 20])
    got = batches(source)
    assert [i for batch in got for i in batch.indices] == list(range(23))
    assert len(source.threads) > 1
    for batch in got:
        assert batch.pixels.shape == (len(batch), 3, 8, 8)
        assert batch.pixels.dtype == torch.float32
        assert batch.ids == [source.ids[i] for i in batch.indices]
        for i, pixels in zip(batch.indices, batch.pixels, strict=True):
            assert torch.equal(pixels, pixels_for(Image.new("RGB", (9, 11), (i, i, i)), PREPROCESS))


def test_bad_images_are_collected_and_batches_refilled():
    skipped = SkippedImages()
    got = batches(Plates(11, bad=[2, 5]), skipped=skipped)
    assert indices(got) == [[0, 1, 3, 4], [6, 7, 8, 9], [10]]
    assert [(each.id, each.reason) for each in skipped] == [
        ("plate2", "cracked"),
        ("plate5", "cracked"),
    ]
    assert skipped.summary() == "2 images left out: plate2 (cracked), plate5 (cracked)"
    assert skipped.summary(1) == "2 images left out: plate2 (cracked), and 1 more"
    assert skipped.summary(2) == skipped.summary()
    assert SkippedImages().summary() == ""


def test_strict_names_the_first_bad_image():
    with pytest.raises(XaikitError, match="plate2 cannot be used: cracked"):
        batches(Plates(11, bad=[2, 5]), strict=True)


def test_none_usable():
    skipped = SkippedImages()
    source = Plates(3, bad=range(3))
    with pytest.raises(XaikitError, match=r"none of the 3 images .* plate0: cracked"):
        batches(source, skipped=skipped)
    # The first of those asked for, whatever was left out before.
    with pytest.raises(XaikitError, match=r"none of the 2 images .* plate2: cracked"):
        batches(source, indices=[2, 1], skipped=skipped)
    assert batches(source, indices=[]) == []


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_limit_counts_usable_images_and_decodes_no_more(workers):
    source = Plates(100, bad=[0, 3])
    got = batches(source, limit=6, workers=workers)
    assert indices(got) == [[1, 2, 4, 5], [6, 7]]
    assert max(source.loaded) == 7


def test_the_sources_own_limit_holds_for_the_whole_source_only():
    assert indices(batches(Plates(9, limit=2))) == [[0, 1]]
    assert indices(batches(Plates(9, limit=2), limit=3)) == [[0, 1, 2]]
    assert indices(batches(Plates(9, limit=2), indices=[5, 4, 3])) == [[5, 4, 3]]


def test_indices_choose_and_order():
    got = batches(Plates(9, bad=[4]), indices=np.array([7, 4, 0, 8]), batch_size=2)
    assert indices(got) == [[7, 0], [8]]


def test_memory_is_bounded():
    source = Plates(500)
    iterator = iter_batches(source, PREPROCESS, batch_size=4, workers=2)
    next(iterator)
    time.sleep(0.2)
    assert len(source.loaded) <= 4 + 4 + 2 * 2
    iterator.close()


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt, ValueError])
def test_closing_early_stops_the_threads(error):
    source = Plates(500, slow=range(500))
    iterator = iter_batches(source, PREPROCESS, batch_size=2, workers=2)
    next(iterator)
    start = time.perf_counter()
    with pytest.raises(error):
        iterator.throw(error)
    assert time.perf_counter() - start < 1
    loaded = len(source.loaded)
    assert not [each for each in threading.enumerate() if each.name.startswith("xaikit-images")]
    time.sleep(0.1)
    assert len(source.loaded) == loaded < 20


def test_what_waits_to_be_decoded_is_dropped_when_the_iterator_is_closed():
    source = Plates(500, slow=range(20, 500))
    iterator = iter_batches(source, PREPROCESS, batch_size=20, workers=1)
    next(iterator)
    iterator.close()
    # One may be on its way; twenty more were waiting.
    assert len(source.loaded) <= 20 + 3


def test_what_decodes_is_closed_whoever_else_holds_it(monkeypatch):
    real, held = pipeline.decoded_frames, []

    def holding(*given, **more):
        held.append(real(*given, **more))
        return held[-1]

    monkeypatch.setattr(pipeline, "decoded_frames", holding)
    iterator = iter_batches(Plates(50), PREPROCESS, batch_size=4, workers=2)
    next(iterator)
    iterator.close()
    assert held[0].gi_frame is None


@pytest.mark.parametrize("error", [SystemExit, MemoryError, KeyboardInterrupt])
def test_a_worker_that_dies_ends_the_run_and_all_of_its_threads(error):
    class Dying(Plates):
        def load(self, i):
            if i == 3:
                raise error
            return super().load(i)

    with pytest.raises(error):
        batches(Dying(500, slow=range(500)), batch_size=2)
    assert not [each for each in threading.enumerate() if each.name.startswith("xaikit-images")]


def test_a_picture_has_its_room_until_it_is_as_small_as_the_model_s(monkeypatch):
    inside = []

    class Kept:
        @contextlib.contextmanager
        def kept(self):
            inside.append(threading.get_ident())
            yield
            inside.remove(threading.get_ident())

    def framing(image, preprocess):
        assert threading.get_ident() in inside
        return framed(image, preprocess)

    monkeypatch.setattr(pipeline, "ROOM", Kept())
    monkeypatch.setattr(pipeline, "framed", framing)
    assert len(batches(Plates(9))) == 3
    assert inside == []


def test_what_was_left_out_says_where_it_was():
    skipped = SkippedImages()
    batches(Plates(9, bad=[4, 7]), indices=[8, 7, 4, 1], skipped=skipped)
    assert [(each.id, each.index) for each in skipped] == [("plate7", 7), ("plate4", 4)]


def test_a_fault_of_the_source_is_not_hidden():
    source = Plates(5)
    source.load = lambda i: 1 / 0
    with pytest.raises(ZeroDivisionError):
        batches(source)


def test_progress():
    calls = []
    batches(Plates(11, bad=[2, 5]), progress=lambda *call: calls.append(call))
    assert calls[0] == ("images", 0, 11)
    assert [done for _, done, _ in calls] == [0, 4, 8, 9]
    assert calls[-1] == ("images", 9, 9)


def test_a_picture_too_thin_to_resize_is_named():
    class Thin(Plates):
        def load(self, i):
            return Image.new("RGB", (1, 10_000_000)) if i == 1 else super().load(i)

    skipped = SkippedImages()
    assert indices(batches(Thin(3), skipped=skipped)) == [[0, 2]]
    assert [each.id for each in skipped] == ["plate1"]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"limit": 0}, {"workers": 0}])
def test_options_out_of_range(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is 0"):
        batches(Plates(3), **wrong)
