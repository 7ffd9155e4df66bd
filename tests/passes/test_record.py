"""One pass that records several pairs of layers: who waits for whom, and what is an error."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch
from made_traces import candidates_of

from xaikit.artifacts.storage import Storage
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.images import NoUsableImageError, Skipped, SkippedImages
from xaikit.passes import record as module
from xaikit.passes.record import Recording, _halved, layer_pair


def tower_of(layers: int) -> Any:
    return Some(info=Some(layers=layers, model="small"))


@pytest.mark.parametrize(
    ("layers", "pair"), [(2, (0, 1)), (3, (1, 2)), (4, (2, 3)), (12, (7, 8)), (24, (16, 17))]
)
def test_the_default_is_about_seven_tenths_up_and_never_the_last(
    layers: int, pair: tuple[int, int]
) -> None:
    assert layer_pair(tower_of(layers), None, None) == pair


@pytest.mark.parametrize(
    ("target", "following", "said"),
    [
        (-1, None, "`target_layer=-1` is out of range: small has layers 0 to 5"),
        (6, None, "`target_layer=6` is out of range"),
        (5, None, "the last layer has no layer after it; pass `target_layer=4` or less"),
        (2, 2, "`next_attn_layer=2` does not come after 2: pass one from 3 to 5"),
        (2, 1, "`next_attn_layer=1` does not come after 2"),
        (2, 6, "`next_attn_layer=6` does not come after 2"),
    ],
)
def test_layers_that_are_no_pair_are_named(target: int, following: int | None, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        layer_pair(tower_of(6), target, following)
    assert said in str(caught.value)


@pytest.mark.parametrize("target", [None, 0])
def test_a_model_of_one_layer_has_no_pair(target: int | None) -> None:
    with pytest.raises(UsageError, match="small has a single layer, and no layer comes after it"):
        layer_pair(tower_of(1), target, None)


def test_any_later_layer_may_be_the_next() -> None:
    assert layer_pair(tower_of(6), 2, 5) == (2, 5)
    assert layer_pair(tower_of(6), 4, None) == (4, 5)


class Writer:
    """A trace that is written as far as a cursor."""

    def __init__(self, cursor: int = 0) -> None:
        self.cursor, self.skipped, self.used = cursor, [], list(range(cursor))
        self.taken: list[Any] = []

    def add(self, indices: list[int], tensors: Any, skipped: Any) -> None:
        """Take a batch."""
        self.taken.append((indices, tensors, list(skipped)))
        self.skipped += skipped
        self.cursor = indices[-1] + 1


def recording(batches: Any, images: int = 8, **more: Any) -> Any:
    """A pass that reads these batches, whatever it is asked for."""
    none: Any = None
    found = Recording(
        tower=none,
        pairs=[(0, 1), (1, 2)],
        source=none,
        candidates=candidates_of(images),
        batch_size=2,
        workers=1,
        strict=False,
        progress=lambda *_: None,
        **more,
    )
    asked: list[Any] = []

    def read(start: int, done: int) -> Any:
        asked.append((start, done))
        yield from batches(found)

    object.__setattr__(found, "batches", read)
    found.__dict__["asked"] = asked
    return found


def test_a_trace_that_is_ahead_waits_for_the_others() -> None:
    def batches(_recording: Any) -> Any:
        for at in (2, 4, 6):
            yield Some(indices=[at, at + 1]), [f"one {at}", f"two {at}"]

    own = recording(batches)
    one, two = Writer(2), Writer(6)
    own.write([one, two])
    assert own.__dict__["asked"] == [(2, 2)]
    assert [(indices, tensors) for indices, tensors, _ in one.taken] == [
        ([2, 3], "one 2"),
        ([4, 5], "one 4"),
        ([6, 7], "one 6"),
    ]
    assert [(indices, tensors) for indices, tensors, _ in two.taken] == [([6, 7], "two 6")]


def test_each_trace_is_told_once_of_each_image_that_cannot_be_used() -> None:
    def batches(own: Any) -> Any:
        own.skipped.records.append(Skipped("a", "torn", 0))
        yield Some(indices=[1, 2]), ["x", "y"]
        own.skipped.records.append(Skipped("b", "torn", 3))
        yield Some(indices=[4, 5]), ["x", "y"]
        # After the last batch.
        own.skipped.records.append(Skipped("c", "torn", 6))

    own = recording(batches)
    one, two = Writer(), Writer()
    two.skipped = [(0, "torn")]
    own.write([one, two])
    assert [skipped for *_, skipped in one.taken] == [[(0, "torn")], [(3, "torn")]]
    assert [skipped for *_, skipped in two.taken] == [[], [(3, "torn")]]
    assert one.skipped == two.skipped == [(0, "torn"), (3, "torn"), (6, "torn")]


@pytest.mark.parametrize(
    ("cursor", "shared", "error"), [(0, False, True), (4, False, False), (0, True, False)]
)
def test_a_tail_of_unusable_images_is_no_error_where_others_could_be_used(
    cursor: int, shared: bool, error: bool
) -> None:
    def batches(own: Any) -> Any:
        own.skipped.records.append(Skipped("z", "torn", 7))
        raise NoUsableImageError("none of the images can be used")
        yield

    own, writer = recording(batches, shared=shared), Writer(cursor)
    if error:
        with pytest.raises(NoUsableImageError):
            own.write([writer])
        return
    own.write([writer])
    assert writer.skipped == [(7, "torn")]


@pytest.mark.parametrize(("shards", "size"), [(0, 1), (4, 1), (4, 2)])
def test_files_are_written_together_in_folders_that_are_held_and_have_room(
    monkeypatch: pytest.MonkeyPatch, shards: int, size: int
) -> None:
    said: list[Any] = []

    def opened(name: str) -> Any:
        @contextmanager
        def manager(*given: Any, **more: Any) -> Any:
            said.append((name, given[0], *([more] if more else [])))
            yield Some(bytes_needed=100, given=given)
            said.append((f"end of {name}", given[0]))

        return manager

    monkeypatch.setattr(module, "holding", opened("hold"))
    monkeypatch.setattr(module, "writing", opened("write"))
    monkeypatch.setattr(module, "require_room", lambda *given: said.append(("room", *given)))
    monkeypatch.setattr(module, "finish_together", lambda *given: said.append(("finish", given[1])))
    world: Any = Some(rank=size - 1, size=size, all_reduce=lambda tensors: tensors[0].add_(1))
    own = recording(lambda _own: iter(()))
    object.__setattr__(own, "write", lambda writers: said.append(("pass", len(writers))))
    infos: Any = ["info 0", "info 1"]
    own.write_files(infos, ["a", "b"], Storage(shard_images=shards), world, True)
    prefix = "" if size == 1 else "part-1-of-2-"
    names = [each[0] for each in said]
    assert names == [
        *(["hold", "hold"] if shards else []),
        *("write", "write", "room", "pass", "finish", "finish"),
        *("end of write", "end of write"),
        *(["end of hold", "end of hold"] if shards else []),
    ]
    written = [each for each in said if each[0] == "write"]
    assert written == [("write", out, {"prefix": prefix, "force": True}) for out in ("a", "b")]
    # Of all traces and of all processes together.
    assert ("room", Path("a"), 201, "the traces") in said


def test_queries_and_keys_are_halved_where_they_fit() -> None:
    small, large = torch.tensor([1.5, -2.0]), torch.tensor([1.0, 1e6])
    assert _halved("queries_l1", small).dtype == torch.float16
    assert _halved("keys_l1", small).dtype == torch.float16
    assert _halved("keys_l1", large) is large
    assert _halved("h_l", small) is small


def test_no_image_is_read_where_all_are_done() -> None:
    none: Any = None
    told: list[Any] = []
    own = Recording(
        tower=none,
        pairs=[(0, 1)],
        source=none,
        candidates=candidates_of(6),
        batch_size=2,
        workers=1,
        strict=False,
        progress=lambda *said: told.append(said),
        skipped=SkippedImages(),
    )
    assert list(own.batches(6, 6)) == []
    assert told == [("images", 6, 6)]
    assert World().size == 1
