"""`trace`: record one layer's FFN gates and the next layer's attention logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.candidates import Candidates
from xaikit.artifacts.inputs import require_parts
from xaikit.artifacts.options import option, resolve
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.trace import Trace
from xaikit.distributed import World
from xaikit.images import SkippedImages
from xaikit.images.content import Contents
from xaikit.images.survey import candidate_count
from xaikit.passes.feed import LayerPair
from xaikit.passes.record import Recording, blank_info, layer_pair
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

SHARED_SHARD = 256
"""Images a shard where several processes write one trace and nothing else was asked for."""


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Which layers are read.

    Attributes
    ----------
    target_layer : int, optional
        Layer whose FFN is read; by default the one about 0.7 up.
    next_attn_layer : int, optional
        Layer whose attention is read; by default the layer after.
    """

    target_layer: int | None = option(None, "Layer whose FFN gates are read; default: high up.")
    next_attn_layer: int | None = option(
        None, "Layer whose attention is read; default: the layer after."
    )


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How images are read.

    Attributes
    ----------
    max_images : int, optional
        Stop after so many usable images.
    batch_size : int
    workers : int, optional
        Threads that decode images.
    strict : bool
        Make the first unusable image an error.
    """

    max_images: int | None = option(
        None, "Stop after so many usable images, in order.", panel="Images", least=1
    )
    batch_size: int = option(32, "Images a forward pass.", panel="Running", least=1, idle=True)
    workers: int | None = option(
        None, "Threads that decode images.", panel="Running", least=1, idle=True
    )
    strict: bool = option(False, "Fail at the first unusable image.", panel="Images", idle=True)


@dataclass(frozen=True, kw_only=True)
class TraceOptions(ReadOptions):
    """How images are recorded.

    Attributes
    ----------
    storage : Storage
        Number format, packed gates, shards.
    """

    storage: Storage = Storage()


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
    require_parts(tower, source)
    pair = layer_pair(tower, target_layer, next_attn_layer)
    outs = None if out is None else [out]
    found = trace_layers(tower, source, [pair], outs=outs, **options)
    return found[0] if found else None


def trace_layers(
    tower: Tower,
    source: ImageSource,
    pairs: Sequence[LayerPair],
    options: TraceOptions | None = None,
    *,
    outs: Sequence[str | Path] | None = None,
    force: bool = False,
    world: World | None = None,
    skipped: SkippedImages | None = None,
    contents: Contents | None = None,
    progress: Progress = silent,
    **given: Any,
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
    options : TraceOptions, optional
    force : bool
        Write over the shards of another trace.
    world : World, optional
        Processes that share the images: each takes a run of candidates and writes its own shards
        under one index.
    skipped : SkippedImages, optional
        Receives the images that could not be used.
    contents : Contents, optional
        Digests of the source's images, where some are known already.
    **given
        Fields of `TraceOptions`, in place of or beside the record.

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
    require_parts(tower, source)
    o = resolve(TraceOptions, options, given)
    world, storage = world or World(), o.storage
    if world.size > 1 and not storage.shard_images:
        storage = replace(storage, shard_images=SHARED_SHARD)
    storage = _whole_batches(storage, o.batch_size)
    count = candidate_count(source, tower.preprocess, o.max_images, o.workers)
    contents = contents or Contents(source, workers=o.workers)
    run = Recording(
        tower=tower,
        pairs=list(pairs),
        source=source,
        candidates=Candidates(
            names=source,
            content=contents.fingerprint,
            own=range(count * world.rank // world.size, count * (world.rank + 1) // world.size),
            total=count,
        ),
        batch_size=o.batch_size,
        workers=o.workers,
        strict=o.strict,
        progress=progress,
        shared=world.size > 1,
        skipped=SkippedImages() if skipped is None else skipped,
    )
    infos = [blank_info(tower, source, pair, storage.dtype) for pair in pairs]
    if outs is None:
        return run.in_memory(infos)
    run.write_files(infos, outs, storage, world, force)
    return [Trace.load(out) for out in outs] if world.leads else []


def _whole_batches(storage: Storage, batch_size: int) -> Storage:
    """Let shards end where batches end, so that an interrupted run can go on at any shard."""
    batches = -(-storage.shard_images // batch_size)
    return replace(storage, shard_images=batches * batch_size)
