"""`trace`: record one layer's FFN gates and the next layer's attention logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.trace import Trace, TraceInfo
from xaikit.artifacts.trace_writer import Storage, writing
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_writer import TraceWriter
    from xaikit.images import Batch, ImageSource, SkippedImages
    from xaikit.towers import AttentionCall, Tower


def trace(
    tower: Tower,
    source: ImageSource,
    *,
    target_layer: int | None = None,
    next_attn_layer: int | None = None,
    out: str | Path | None = None,
    max_images: int | None = None,
    batch_size: int = 32,
    storage: Storage | None = None,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> Trace:
    """Record gates and logits of a tower on images, writing as it goes.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
    target_layer : int, optional
        Layer whose FFN is read; by default the one about three quarters up.
    next_attn_layer : int, optional
        Layer whose attention is read; by default the layer after.
    out : path, optional
        Where to write; None keeps the trace in memory.
    max_images : int, optional
        Stop after so many usable images.
    storage : Storage, optional
        Number format, packed gates, shards.
    strict : bool
        Make the first unusable image an error.
    force : bool
        Write over the shards of another trace.

    Returns
    -------
    Trace
        Opened for reading.

    Raises
    ------
    UsageError
        Where layers, folder or disk do not fit.
    XaikitError
        Where no image is usable, or a logit is not finite.
    """
    from xaikit.images import SkippedImages

    layer, next_layer = layer_pair(tower, target_layer, next_attn_layer)
    storage = storage or Storage()
    skipped = SkippedImages() if skipped is None else skipped
    options = trace_options(source, max_images, tower.precision, storage)
    info = _blank_info(tower, source, layer, next_layer, options)
    run = _Run(tower, source, layer, next_layer, batch_size, workers, strict, skipped, progress)
    limit = min(len(source), max_images or len(source))
    if out is None:
        return _in_memory(run, info, limit)
    names = [*source.ids, *(source.groups or [])]
    with writing(
        out,
        info,
        storage,
        capacity=limit,
        id_bytes=max(len(name.encode()) for name in names),
        force=force,
    ) as writer:
        run.write(writer, limit)
        writer.finish()
    return Trace.load(out)


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


def _blank_info(
    tower: Tower, source: ImageSource, layer: int, next_layer: int, options: dict[str, Any]
) -> TraceInfo:
    origin = Origin(
        model=tower.info.model,
        pretrained=tower.pretrained,
        weights_fingerprint=tower.weights_fingerprint,
        images_fingerprint="",
    )
    provenance = Provenance(origin=origin, layer=layer, next_layer=next_layer, options=options)
    return TraceInfo(
        provenance=provenance,
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


class _Run:
    """One pass over the images."""

    def __init__(
        self,
        tower: Tower,
        source: ImageSource,
        layer: int,
        next_layer: int,
        batch_size: int,
        workers: int | None,
        strict: bool,
        skipped: SkippedImages,
        progress: Progress,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size} is not a positive number")
        self.tower, self.source = tower, source
        self.layer, self.next_layer = layer, next_layer
        self.batch_size, self.workers, self.strict = batch_size, workers, strict
        self.skipped, self.progress = skipped, progress

    def batches(self, start: int, limit: int) -> Iterator[Batch]:
        from xaikit.images import iter_batches

        return iter_batches(
            self.source,
            self.tower.preprocess,
            batch_size=self.batch_size,
            indices=range(start, len(self.source)),
            limit=limit,
            workers=self.workers,
            strict=self.strict,
            skipped=self.skipped,
        )

    def write(self, writer: TraceWriter, limit: int) -> None:
        done = len(writer.images)
        if done >= limit:
            return
        groups = self.source.groups
        self.progress("images", done, limit)
        for batch in self.batches(writer.cursor, limit - done):
            writer.add(
                batch.ids,
                [groups[i] for i in batch.indices] if groups else None,
                captured(self.tower, batch.pixels, self.layer, self.next_layer),
                cursor=batch.indices[-1] + 1,
                skipped=[(item.id, item.reason) for item in self.skipped],
            )
            done += len(batch.ids)
            self.progress("images", done, limit)


def captured(tower: Tower, pixels: Tensor, layer: int, next_layer: int) -> dict[str, Tensor]:
    """The trace's tensors of one batch, under the contract's names, on the tower's device."""
    import torch

    from xaikit.errors import XaikitError
    from xaikit.towers import capture

    found: dict[str, Tensor] = {}

    def ffn(hidden: Tensor, gate: Tensor) -> None:
        found["h_l"], found["ffn_gate_l"] = hidden, gate.to(torch.uint8)

    def attention(call: AttentionCall) -> None:
        found["attn_logits_l1"] = call.logits()

    def residual(hidden: Tensor) -> None:
        found["residual_norms_l1"] = hidden.float().norm(dim=-1)

    capture(
        tower,
        pixels,
        ffn={layer: ffn},
        attention={next_layer: attention},
        residual={next_layer: residual},
    )
    if not bool(torch.isfinite(found["attn_logits_l1"]).all()):
        raise XaikitError(
            f"attention logits of layer {next_layer} are not finite; "
            "check the weights, or pass --precision float32"
        )
    return found


def _in_memory(run: _Run, info: TraceInfo, limit: int) -> Trace:
    from dataclasses import replace

    import torch

    parts: dict[str, list[Tensor]] = {}
    indices: list[int] = []
    ids: list[str] = []
    for batch in run.batches(0, limit):
        tensors = captured(run.tower, batch.pixels, run.layer, run.next_layer)
        for name, tensor in tensors.items():
            parts.setdefault(name, []).append(tensor.cpu())
        indices += batch.indices
        ids += batch.ids
        run.progress("images", len(ids), limit)
    origin = replace(info.provenance.origin, images_fingerprint=fingerprint(ids))
    groups = run.source.groups
    finished = replace(
        info,
        provenance=replace(info.provenance, origin=origin),
        images=ids,
        groups=[groups[i] for i in indices] if groups else None,
        skipped=[[item.id, item.reason] for item in run.skipped],
        skipped_count=len(run.skipped),
    )
    return Trace.from_tensors(finished, {name: torch.cat(found) for name, found in parts.items()})
