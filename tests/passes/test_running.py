"""Blocks of a running model: whole blocks a pass, closed up over what cannot be read."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import XaikitError
from xaikit.images.decoding import BadImage
from xaikit.passes import running as module
from xaikit.passes.feed import ATTENTION, GATES, NORMS, Visitor, chunks
from xaikit.passes.running import CalledAttention, ModelFeed, _whole_blocks
from xaikit.towers import AttentionCall

PREPROCESS = Preprocess(size=(4, 4), mean=(0.0,) * 3, std=(1.0,) * 3)


class Plates:
    """Pictures of brightness `i`, of which some are bad."""

    groups = None

    def __init__(self, count: int, bad: Any = ()) -> None:
        self.ids, self.bad = [f"plate {i}" for i in range(count)], set(bad)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        if i in self.bad:
            raise BadImage(self.ids[i], "cracked")
        return Image.new("RGB", (4, 4), (i, i, i))


class Kept:
    """A checkpoint that says when it was asked to be made."""

    def __init__(self, done: int = 0) -> None:
        self.done, self.passed_at = done, []

    def of(self, *_: Any) -> Kept:
        """Of whatever pass."""
        return self

    def resume(self, _skipped: Any) -> int:
        """As far as an interrupted run came."""
        return self.done

    def passed(self, done: int, skipped: Any) -> None:
        """Keep it."""
        self.passed_at.append((done, [each.id for each in skipped]))


def shown(source: Plates, *, done: int = 0, **more: Any) -> tuple[Any, Kept, list[Any], ModelFeed]:
    """What is shown of blocks of three images of twelve, six images a pass."""
    seen: list[Any] = []
    kept, told = Kept(done), []
    tower: Any = Some(preprocess=PREPROCESS, device=torch.device("cpu"))
    feed = ModelFeed(
        tower=tower,
        source=source,  # type: ignore[arg-type]
        infos={},
        batch_size=6,
        workers=2,
        checkpoint=kept,  # type: ignore[arg-type]
        **more,
    )

    def show(blocks: Any, pixels: torch.Tensor, _visitors: Any) -> None:
        values = (pixels[:, 0, 0, 0] * 255).round().int().tolist()
        for block, rows in blocks:
            assert values[rows] == block.images.tolist()
        seen.append([block.images.tolist() for block, _ in blocks])

    feed._show = show  # type: ignore[method-assign]
    feed.visit(
        chunks(np.arange(12), 3), {}, name="sums", progress=lambda *each: told.append(each[1:])
    )
    return seen, kept, told, feed


def test_a_pass_shows_whole_blocks_with_the_images_that_are_there() -> None:
    seen, kept, told, feed = shown(Plates(12, bad={1, 3, 4, 5, 11}))
    assert seen == [[[0, 2]], [[6, 7, 8], [9, 10]]]
    assert told == [(6, 12), (12, 12)]
    assert [done for done, _ in kept.passed_at] == [1, 2]
    assert [each.id for each in feed.skipped] == [f"plate {i}" for i in (1, 3, 4, 5, 11)]


def test_a_pass_that_goes_on_counts_what_was_done() -> None:
    seen, kept, told, _ = shown(Plates(12), done=1)
    assert seen == [[[6, 7, 8], [9, 10, 11]]]
    assert told == [(12, 12)]
    assert [done for done, _ in kept.passed_at] == [2]
    assert shown(Plates(12), done=2)[0] == []


def test_images_that_cannot_be_used_are_told_before_they_are_kept_and_once() -> None:
    source = Plates(12, bad={0, 7})
    _, kept, _, feed = shown(source)
    assert kept.passed_at[-1][1] == ["plate 0", "plate 7"]
    feed.visit(chunks(np.arange(12), 3), {})
    assert [each.id for each in feed.skipped] == ["plate 0", "plate 7"]


def test_no_usable_image_is_left_to_who_adds_up_and_all_are_named() -> None:
    seen, _, _, feed = shown(Plates(12, bad=range(12)))
    assert seen == []
    assert len(feed.skipped) == 12


def test_strict_ends_at_the_first_bad_image() -> None:
    with pytest.raises(XaikitError, match="plate 7 cannot be used: cracked"):
        shown(Plates(12, bad={7}), strict=True)


@pytest.mark.parametrize(
    ("sizes", "batch", "passes"),
    [
        ([3, 3, 3, 3], 6, [[3, 3], [3, 3]]),
        ([3, 3, 3], 7, [[3, 3], [3]]),
        ([3, 3], 2, [[3], [3]]),
        ([5, 2, 2, 1], 4, [[5], [2, 2], [1]]),
        ([2, 9, 2], 4, [[2], [9], [2]]),
    ],
)
def test_a_forward_pass_takes_whole_blocks_and_at_least_one(
    sizes: list[int], batch: int, passes: list[list[int]]
) -> None:
    blocks: Any = [Some(images=np.arange(size)) for size in sizes]
    found = _whole_blocks(blocks, batch)
    assert [[len(block.images) for block in each] for each in found] == passes


def test_queries_are_scaled_and_of_some_images() -> None:
    query, key = torch.randn(2, 4, 2, 3, 5)
    call = AttentionCall(query, key, query, None, 0.25)
    part = CalledAttention(call, slice(1, 3))
    torch.testing.assert_close(part.queries(), 0.25 * query[1:3])
    torch.testing.assert_close(part.keys(), key[1:3])
    products = part.queries() @ part.keys().transpose(-2, -1)
    torch.testing.assert_close(part.logits(slice(None)), products.transpose(0, 1))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_batch_is_uploaded_once_and_in_order(device: str) -> None:
    moved: list[Any] = []

    class Pixels:
        def __init__(self, number: int) -> None:
            self.number = number

        def pin_memory(self) -> Pixels:
            return self

        def to(self, where: Any, non_blocking: bool) -> str:
            assert non_blocking
            moved.append((self.number, where.type))
            return f"moved {self.number}"

    batches: Any = [Some(indices=[at], pixels=Pixels(at)) for at in range(3)]
    found = list(module.uploaded(iter(batches), torch.device(device)))
    assert [indices for indices, _ in found] == [[0], [1], [2]]
    if device == "cuda":
        assert [pixels for _, pixels in found] == ["moved 0", "moved 1", "moved 2"]
        assert moved == [(0, "cuda"), (1, "cuda"), (2, "cuda")]


def test_a_layer_is_asked_for_what_its_own_pairs_want_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wanting(Visitor):
        def __init__(self, *needs: str) -> None:
            self.needs = frozenset(needs)

    asked: dict[str, set[int]] = {}
    monkeypatch.setattr(
        module, "capture", lambda *_, **taps: asked.update({k: set(v) for k, v in taps.items()})
    )
    feed = ModelFeed(tower=Some(), source=Plates(2), infos={})  # type: ignore[arg-type]
    visitors = {(0, 2): [Wanting(GATES, NORMS)], (1, 4): [Wanting(ATTENTION)], (3, 5): [Wanting()]}
    feed._show([], torch.zeros(0), visitors)
    assert asked == {"ffn": {0}, "residual": {2}, "attention": {4}}
