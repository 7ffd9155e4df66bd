"""`trace`: record one layer's FFN gates and the next layer's attention logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.trace import Trace
from xaikit.artifacts.trace_writer import Storage
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.passes.record import LayerPair, Recording, blank_info, layer_pair, trace_options
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from xaikit.images import ImageSource, SkippedImages
    from xaikit.towers import Tower

SHARED_SHARD = 256
"""Images a shard where several processes write one trace and nothing else was asked for."""


def trace(
    tower: Tower,
    source: ImageSource,
    *,
    target_layer: int | None = None,
    next_attn_layer: int | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Trace:
    """Record gates and logits of one pair of layers, writing as it goes.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
    target_layer : int, optional
        Layer whose FFN is read; by default the one about 0.7 up.
    next_attn_layer : int, optional
        Layer whose attention is read; by default the layer after.
    out : path, optional
        Where to write; None keeps the trace in memory.
    **options
        As in `trace_layers`.

    Returns
    -------
    Trace
        Opened for reading.
    """
    found = shared_trace(
        tower,
        source,
        target_layer=target_layer,
        next_attn_layer=next_attn_layer,
        out=out,
        **options,
    )
    assert found is not None
    return found


def shared_trace(
    tower: Tower,
    source: ImageSource,
    *,
    target_layer: int | None = None,
    next_attn_layer: int | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Trace | None:
    """`trace` in one of several processes, see `trace_layers`; None in all but the first."""
    pair = layer_pair(tower, target_layer, next_attn_layer)
    outs = None if out is None else [out]
    found = trace_layers(tower, source, [pair], outs=outs, **options)
    return found[0] if found else None


def trace_layers(
    tower: Tower,
    source: ImageSource,
    pairs: Sequence[LayerPair],
    *,
    outs: Sequence[str | Path] | None = None,
    max_images: int | None = None,
    batch_size: int = 32,
    storage: Storage | None = None,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    world: World | None = None,
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> list[Trace]:
    """Record several pairs of layers in one pass over the images.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
    pairs : sequence of (int, int)
        FFN layer and attention layer of each trace.
    outs : sequence of path, optional
        Where to write each; None keeps them in memory.
    max_images : int, optional
        Stop after so many usable images.
    storage : Storage, optional
        Number format, packed gates, shards.
    strict : bool
        Make the first unusable image an error.
    force : bool
        Write over the shards of another trace.
    world : World, optional
        Processes that share the images: each takes a run of candidates and writes its own shards
        under one index. `max_images` then counts candidates, usable or not.
    skipped : SkippedImages, optional
        Receives the images that could not be used.

    Returns
    -------
    list of Trace
        Empty in all processes but the first.

    Raises
    ------
    UsageError
        Where layers, folder or disk do not fit.
    XaikitError
        Where no image is usable, or a logit is not finite.
    """
    from xaikit.images import SkippedImages

    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size} is not a positive number")
    world = world or World()
    storage = storage or Storage()
    if world.size > 1 and not storage.shard_images:
        storage = replace(storage, shard_images=SHARED_SHARD)
    storage = _whole_batches(storage, batch_size)
    count = min(len(source), max_images or len(source))
    own = range(count * world.rank // world.size, count * (world.rank + 1) // world.size)
    run = Recording(
        tower,
        source,
        list(pairs),
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        skipped=SkippedImages() if skipped is None else skipped,
        candidates=own if world.size > 1 else range(len(source)),
        limit=len(own),
        shared=world.size > 1,
        progress=progress,
    )
    options = trace_options(source, max_images, tower.precision, storage)
    infos = [blank_info(tower, source, pair, options) for pair in pairs]
    if outs is None:
        return run.in_memory(infos)
    run.write_files(infos, outs, storage, world, force)
    return [Trace.load(out) for out in outs] if world.leads else []


def _whole_batches(storage: Storage, batch_size: int) -> Storage:
    """Let shards end where batches end, so that an interrupted run can go on at any shard."""
    if storage.shard_images < 0:
        raise UsageError(f"--shard-size {storage.shard_images} is negative; 0 writes one file")
    batches = -(-storage.shard_images // batch_size)
    return replace(storage, shard_images=batches * batch_size)
