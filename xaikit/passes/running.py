"""Blocks from a running model: logits are shown layer by layer as the forward pass goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.distributed import World
from xaikit.images import NoUsableImageError, SkippedImages, iter_batches
from xaikit.passes.checkpoint import Checkpoint
from xaikit.passes.feed import (
    ATTENTION,
    GATES,
    NORMS,
    LayerPair,
    SeenBlock,
    Visitors,
    wanted,
)
from xaikit.passes.plan import PlannedBlock, own_blocks
from xaikit.progress import Progress, silent
from xaikit.towers import capture, require_finite_call

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.images import Batch, ImageSource
    from xaikit.towers import AttentionCall, AttentionTap, FfnTap, ImageNames, Tower


@dataclass(kw_only=True)
class ModelFeed:
    """Blocks of a model's images; every pass runs the model. Candidates are the source's first.

    Attributes
    ----------
    infos : dict of LayerPair to TraceInfo
        What a trace of each pair would say before its images are known.
    batch_size : int
        Images of a forward pass; it takes whole blocks, at least one.
    checkpoint : Checkpoint, optional
        Where passes that have a name are kept in case they are interrupted.
    skipped : SkippedImages
        Images that could not be used, by candidate; each is named once.
    """

    tower: Tower
    source: ImageSource
    infos: dict[LayerPair, TraceInfo]
    batch_size: int = 32
    workers: int | None = None
    strict: bool = False
    world: World = field(default_factory=World)
    checkpoint: Checkpoint | None = None
    skipped: SkippedImages = field(default_factory=SkippedImages)

    def info(self, pair: LayerPair) -> TraceInfo:
        """Sizes of a pair."""
        return self.infos[pair]

    def visit(
        self,
        blocks: Sequence[PlannedBlock],
        visitors: Visitors,
        *,
        name: str = "",
        what: str = "images",
        progress: Progress = silent,
    ) -> None:
        """Show this process's share of the blocks, see `xaikit.passes.feed.Feed`."""
        own = own_blocks(blocks, self.world)
        passes = _whole_blocks(own, self.batch_size)
        kept = self.checkpoint.of(name, passes, visitors) if self.checkpoint and name else None
        done = kept.resume(self.skipped) if kept else 0
        total = sum(len(block.images) for block in own)
        count = sum(len(block.images) for each in passes[:done] for block in each)
        if done == len(passes):
            return
        found = SkippedImages()
        for at, seen, pixels in self._passes(passes, done, found):
            self._show(seen, pixels, visitors)
            self._remember(found)
            count += sum(len(block.images) for block in passes[at])
            progress(what, count, total)
            if kept:
                kept.passed(at + 1, self.skipped)
        self._remember(found)

    def _remember(self, found: SkippedImages) -> None:
        """Name each unusable image once, however often it is met."""
        known = {record.id for record in self.skipped}
        self.skipped.records += [r for r in found if r.id not in known]
        found.records.clear()

    def _passes(
        self, passes: list[list[PlannedBlock]], done: int, skipped: SkippedImages
    ) -> Iterator[tuple[int, list[tuple[SeenBlock, slice]], Tensor]]:
        """Cut batches, which close up over unusable images, at the planned passes."""
        left = passes[done:]
        order = np.concatenate([block.images for each in left for block in each])
        pass_of = {
            int(c): done + at
            for at, each in enumerate(left)
            for block in each
            for c in block.images
        }
        batches = iter_batches(
            self.source,
            self.tower.preprocess,
            batch_size=max(sum(len(block.images) for block in each) for each in left),
            indices=order.tolist(),
            workers=self.workers,
            strict=self.strict,
            skipped=skipped,
        )
        held: list[tuple[np.ndarray, Tensor]] = []
        current = -1
        try:
            for indices, pixels in uploaded(batches, self.tower.device):
                images = np.array(indices)
                numbers = np.array([pass_of[int(image)] for image in images])
                for number in dict.fromkeys(numbers.tolist()):
                    if held and number != current:
                        yield current, *_joined(held, passes[current])
                        held = []
                    rows = np.flatnonzero(numbers == number)
                    part = slice(int(rows[0]), int(rows[-1]) + 1)
                    held.append((images[part], pixels[part]))
                    current = number
        except NoUsableImageError:
            # Images may be all in other processes, or have been read before an interruption.
            pass
        if held:
            yield current, *_joined(held, passes[current])

    def _show(
        self, seen: list[tuple[SeenBlock, slice]], pixels: Tensor, visitors: Visitors
    ) -> None:
        ffn = {pair[0] for pair, each in visitors.items() if wanted(each, GATES)}
        norms = {pair[1] for pair, each in visitors.items() if wanted(each, NORMS)}
        calls = {pair[1] for pair, each in visitors.items() if wanted(each, ATTENTION)}
        shown = [int(image) for block, _ in seen for image in block.images]
        capture(
            self.tower,
            pixels,
            ffn={layer: _ffn_tap(layer, seen, visitors) for layer in ffn},
            attention={
                layer: _attention_tap(
                    layer, seen, visitors, lambda row: self.source.ids[shown[row]]
                )
                for layer in calls
            },
            residual={layer: _norm_tap(layer, seen, visitors) for layer in norms},
        )


def _ffn_tap(layer: int, seen: list[tuple[SeenBlock, slice]], visitors: Visitors) -> FfnTap:
    def tap(_inputs: Tensor, gate: Tensor) -> None:
        for pair, each in visitors.items():
            if pair[0] == layer:
                for visitor in wanted(each, GATES):
                    for block, rows in seen:
                        visitor.gates(block, gate[rows])

    return tap


def _norm_tap(
    layer: int, seen: list[tuple[SeenBlock, slice]], visitors: Visitors
) -> Callable[[Tensor], None]:
    def tap(stream: Tensor) -> None:
        norms = stream.float().norm(dim=-1)
        for pair, each in visitors.items():
            if pair[1] == layer:
                for visitor in wanted(each, NORMS):
                    for block, rows in seen:
                        visitor.norms(block, norms[rows])

    return tap


def _attention_tap(
    layer: int, seen: list[tuple[SeenBlock, slice]], visitors: Visitors, names: ImageNames
) -> AttentionTap:
    def tap(call: AttentionCall) -> None:
        require_finite_call(call, layer, names)
        for pair, each in visitors.items():
            if pair[1] == layer:
                for visitor in wanted(each, ATTENTION):
                    for block, rows in seen:
                        visitor.attention(block, CalledAttention(call, rows))

    return tap


@dataclass(frozen=True)
class CalledAttention:
    """Some images of an attention call."""

    call: AttentionCall
    rows: slice

    def logits(self, heads: slice) -> Tensor:
        """Logits of some heads ``[head, image, token, token]`` float32."""
        return self.call.logits_of(self.rows, heads)

    def queries(self) -> Tensor:
        """Scaled queries ``[image, head, token, dim]``."""
        return self.call.query[self.rows].float() * self.call.scale

    def keys(self) -> Tensor:
        """Keys ``[image, head, token, dim]``."""
        return self.call.key[self.rows].float()


def _whole_blocks(blocks: Sequence[PlannedBlock], batch_size: int) -> list[list[PlannedBlock]]:
    """Group blocks into forward passes of about `batch_size` images."""
    passes: list[list[PlannedBlock]] = []
    room = 0
    for block in blocks:
        if not passes or len(block.images) > room:
            passes.append([])
            room = batch_size
        passes[-1].append(block)
        room -= len(block.images)
    return passes


def _joined(
    held: list[tuple[np.ndarray, Tensor]], blocks: list[PlannedBlock]
) -> tuple[list[tuple[SeenBlock, slice]], Tensor]:
    """The blocks of a pass with the images that are there, and their pixels."""
    images = np.concatenate([part for part, _ in held])
    pixels = held[0][1] if len(held) == 1 else torch.cat([part for _, part in held])
    seen, start = [], 0
    for block in blocks:
        there = block.images[np.isin(block.images, images)]
        if len(there):
            seen.append((SeenBlock(block, there), slice(start, start + len(there))))
        start += len(there)
    return seen, pixels


def uploaded(batches: Iterator[Batch], device: torch.device) -> Iterator[tuple[list[int], Tensor]]:
    """Batches with their pixels on the device, the next one on its way while one is used."""
    ahead: tuple[list[int], Tensor] | None = None
    for batch in batches:
        if device.type != "cuda":
            yield batch.indices, batch.pixels
            continue
        pixels = batch.pixels.pin_memory().to(device, non_blocking=True)
        if ahead is not None:
            yield ahead
        ahead = (batch.indices, pixels)
    if ahead is not None:
        yield ahead
