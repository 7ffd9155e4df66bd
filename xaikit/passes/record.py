"""One pass over the images that records several pairs of layers, into files or memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.shared_trace import finish_together
from xaikit.artifacts.trace import Trace, TraceInfo
from xaikit.artifacts.trace_writer import Storage, writing
from xaikit.distributed import World
from xaikit.errors import UsageError, XaikitError
from xaikit.images import NoUsableImageError
from xaikit.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_writer import TraceWriter
    from xaikit.images import Batch, ImageSource, SkippedImages
    from xaikit.towers import AttentionCall, AttentionTap, FfnTap, Tower

LayerPair = tuple[int, int]
"""The layer whose FFN is read and the layer whose attention is read."""


def layer_pair(tower: Tower, target: int | None, following: int | None) -> tuple[int, int]:
    """Check the two layers and fill in the defaults."""
    layers = tower.info.layers
    if target is None:
        target = min(max(0, round(0.7 * layers) - 1), layers - 2)
    if not 0 <= target < layers:
        raise UsageError(
            f"--target-layer {target} is out of range: {tower.info.model} has layers "
            f"0 to {layers - 1}"
        )
    if following is None:
        following = target + 1
    if not target < following < layers:
        hint = f"pass one from {target + 1} to {layers - 1}"
        if target == layers - 1:
            hint = f"the last layer has no layer after it; pass --target-layer {layers - 2} or less"
        raise UsageError(f"--next-attn-layer {following} does not come after {target}: {hint}")
    return target, following


def trace_options(
    source: ImageSource, max_images: int | None, precision: str, storage: Storage
) -> dict[str, Any]:
    """Options that a trace records and that decide whether one can be used again."""
    return {
        "max_images": max_images,
        "precision": precision,
        "candidates": fingerprint(list(source.ids)),
        "store_dtype": storage.dtype,
        "packed_gates": storage.packed_gates,
        "shard_images": storage.shard_images,
    }


def blank_info(
    tower: Tower, source: ImageSource, pair: LayerPair, options: dict[str, Any]
) -> TraceInfo:
    """What a trace says before its images are known."""
    origin = Origin(
        model=tower.info.model,
        pretrained=tower.pretrained,
        weights_fingerprint=tower.weights_fingerprint,
        images_fingerprint="",
    )
    return TraceInfo(
        provenance=Provenance(origin=origin, layer=pair[0], next_layer=pair[1], options=options),
        images=[],
        groups=None,
        tokens=tower.info.tokens,
        heads=tower.info.heads,
        prefix_tokens=tower.info.prefix_tokens,
        width=tower.info.width,
        ffn_width=tower.info.ffn_width,
        grid=list(tower.info.grid),
        source=source.describe(),
        preprocess=asdict(tower.preprocess),
    )


@dataclass
class Recording:
    """One pass over the images, for all pairs of layers."""

    tower: Tower
    source: ImageSource
    pairs: list[LayerPair]
    batch_size: int
    workers: int | None
    strict: bool
    skipped: SkippedImages
    candidates: range
    limit: int
    shared: bool
    progress: Progress

    def batches(self, start: int, done: int) -> Iterator[tuple[Batch, list[dict[str, Tensor]]]]:
        """Batches from candidate `start` on, with their tensors pair by pair."""
        from xaikit.images import iter_batches

        self.progress("images", done, self.limit)
        if done >= self.limit:
            return
        for batch in iter_batches(
            self.source,
            self.tower.preprocess,
            batch_size=self.batch_size,
            indices=range(start, self.candidates.stop),
            limit=self.limit - done,
            workers=self.workers,
            strict=self.strict,
            skipped=self.skipped,
        ):
            yield batch, captured(self.tower, batch.pixels, self.pairs)
            done += len(batch)
            self.progress("images", done, self.limit)

    def groups_of(self, indices: list[int]) -> list[str] | None:
        groups = self.source.groups
        return [groups[i] for i in indices] if groups else None

    def write_files(
        self,
        infos: list[TraceInfo],
        outs: Sequence[str | Path],
        storage: Storage,
        world: World,
        force: bool,
    ) -> None:
        """Write every trace, or this process's part of it."""
        names = [*self.source.ids, *(self.source.groups or [])]
        longest = max(len(name.encode()) for name in names)
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(
                    writing(
                        out,
                        info,
                        storage,
                        capacity=self.limit,
                        id_bytes=longest,
                        start=self.candidates.start,
                        prefix="" if world.size == 1 else f"part-{world.rank}-of-{world.size}-",
                        force=force,
                    )
                )
                for out, info in zip(outs, infos, strict=True)
            ]
            self.write(writers)
            for writer in writers:
                finish_together(writer, world)

    def write(self, writers: list[TraceWriter]) -> None:
        """Feed every writer; one whose shards are ahead of the others waits for them.

        Where an interrupted run had everything but a tail of unusable images, that tail is no
        error; nor is it one where other processes have usable ones.
        """
        behind = min(writers, key=lambda writer: writer.cursor)
        done = len(behind.images)
        may_be_none = done or self.shared
        with contextlib.suppress(NoUsableImageError) if may_be_none else contextlib.nullcontext():
            self._write_from(writers, behind.cursor, done)

    def _write_from(self, writers: list[TraceWriter], start: int, done: int) -> None:
        for batch, found in self.batches(start, done):
            skipped = [(item.id, item.reason) for item in self.skipped]
            for writer, tensors in zip(writers, found, strict=True):
                if batch.indices[0] < writer.cursor:
                    continue
                writer.add(
                    batch.ids,
                    self.groups_of(batch.indices),
                    tensors,
                    cursor=batch.indices[-1] + 1,
                    skipped=skipped,
                )

    def in_memory(self, infos: list[TraceInfo]) -> list[Trace]:
        """Collect all tensors."""
        parts: list[dict[str, list[Tensor]]] = [{} for _ in infos]
        indices: list[int] = []
        for batch, found in self.batches(self.candidates.start, 0):
            indices += batch.indices
            for part, tensors in zip(parts, found, strict=True):
                for name, tensor in tensors.items():
                    part.setdefault(name, []).append(tensor.cpu())
        return [
            Trace.from_tensors(
                self._finished(info, indices),
                {name: torch.cat(tensors) for name, tensors in part.items()},
            )
            for info, part in zip(infos, parts, strict=True)
        ]

    def _finished(self, info: TraceInfo, indices: list[int]) -> TraceInfo:
        ids = [self.source.ids[i] for i in indices]
        origin = replace(info.provenance.origin, images_fingerprint=fingerprint(ids))
        return replace(
            info,
            provenance=replace(info.provenance, origin=origin),
            images=ids,
            groups=self.groups_of(indices),
            skipped=[[item.id, item.reason] for item in self.skipped],
            skipped_count=len(self.skipped),
        )


def captured(tower: Tower, pixels: Tensor, pairs: Sequence[LayerPair]) -> list[dict[str, Tensor]]:
    """The traces' tensors of one batch, under the contract's names, on the tower's device.

    Raises
    ------
    XaikitError
        Where a logit is not finite.
    """
    from xaikit.towers import capture

    hidden: dict[int, tuple[Tensor, Tensor]] = {}
    logits: dict[int, Tensor] = {}
    norms: dict[int, Tensor] = {}

    def ffn(layer: int) -> FfnTap:
        def tap(inputs: Tensor, gate: Tensor) -> None:
            hidden[layer] = (inputs, gate.to(torch.uint8))

        return tap

    def attention(layer: int) -> AttentionTap:
        def tap(call: AttentionCall) -> None:
            logits[layer] = call.logits()

        return tap

    def residual(layer: int) -> Callable[[Tensor], None]:
        def tap(stream: Tensor) -> None:
            norms[layer] = stream.float().norm(dim=-1)

        return tap

    following = {pair[1] for pair in pairs}
    capture(
        tower,
        pixels,
        ffn={layer: ffn(layer) for layer in {pair[0] for pair in pairs}},
        attention={layer: attention(layer) for layer in following},
        residual={layer: residual(layer) for layer in following},
    )
    for layer, found in logits.items():
        if not bool(torch.isfinite(found).all()):
            raise XaikitError(
                f"attention logits of layer {layer} are not finite; "
                "check the weights, or pass --precision float32"
            )
    return [
        {
            "h_l": hidden[layer][0],
            "ffn_gate_l": hidden[layer][1],
            "attn_logits_l1": logits[after],
            "residual_norms_l1": norms[after],
        }
        for layer, after in pairs
    ]
