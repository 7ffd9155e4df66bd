"""One pass over the images that records several pairs of layers, into files or memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch

from xaikit.artifacts.candidates import Candidates
from xaikit.artifacts.holding import holding
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.shared_trace import finish_together
from xaikit.artifacts.storage import Storage, require_room
from xaikit.artifacts.trace import QUERIES_KEYS, Trace, TraceInfo
from xaikit.artifacts.trace_writer import TraceWriter, writing
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.images import NoUsableImageError, SkippedImages, iter_batches
from xaikit.passes.feed import LayerPair
from xaikit.progress import Progress
from xaikit.towers import believe, capture, require_finite_logits

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.images import Batch, ImageSource
    from xaikit.towers import AttentionCall, AttentionTap, FfnTap, ImageNames, Tower


def layer_pair(tower: Tower, target: int | None, following: int | None) -> LayerPair:
    """Check the two layers and fill in the defaults."""
    layers = tower.info.layers
    if layers < 2:
        raise UsageError(f"{tower.info.model} has a single layer, and no layer comes after it")
    if target is None:
        target = max(0, round(0.7 * layers) - 1)
    if not 0 <= target < layers:
        raise UsageError(
            f"`target_layer={target}` is out of range: {tower.info.model} has layers "
            f"0 to {layers - 1}"
        )
    if following is None:
        following = target + 1
    if not target < following < layers:
        hint = f"pass one from {target + 1} to {layers - 1}"
        if target == layers - 1:
            hint = f"the last layer has no layer after it; pass `target_layer={layers - 2}` or less"
        raise UsageError(f"`next_attn_layer={following}` does not come after {target}: {hint}")
    return target, following


def trace_options(precision: str, store_dtype: str) -> dict[str, Any]:
    """Options that shape a trace's numbers; a streamed run says the same of its images."""
    return {"precision": precision, "store_dtype": store_dtype}


def blank_info(
    tower: Tower, source: ImageSource, pair: LayerPair, store_dtype: str = "float32"
) -> TraceInfo:
    """What a trace says before its images are known.

    Raises
    ------
    XaikitError
        If the tower fails the self-check, which one that was loaded has to pass first.
    """
    origin = Origin(
        model=tower.info.model,
        pretrained=tower.pretrained,
        weights_fingerprint=tower.weights_fingerprint,
        images_fingerprint="",
    )
    options = trace_options(tower.precision, store_dtype)
    return TraceInfo(
        provenance=Provenance(origin=origin, layer=pair[0], next_layer=pair[1], options=options),
        images=[],
        groups=None,
        tokens=tower.info.tokens,
        heads=tower.info.heads,
        prefix_kinds=list(tower.info.prefix_kinds),
        width=tower.info.width,
        ffn_width=tower.info.ffn_width,
        grid=list(tower.info.grid),
        source=source.describe(),
        # As they read back from a file.
        preprocess=orjson.loads(orjson.dumps(asdict(tower.preprocess))),
        tower=orjson.loads(orjson.dumps(_trusted(tower))),
    )


def _trusted(tower: Tower) -> dict[str, Any]:
    """Where a tower is from, and that what is read of it is what it computes."""
    if not tower.loaded:
        return {}
    return {"loaded": tower.loaded, "self_check": believe(tower)}


@dataclass(kw_only=True)
class Recording:
    """One pass over some candidates, for all pairs of layers."""

    tower: Tower
    pairs: list[LayerPair]
    source: ImageSource
    candidates: Candidates
    batch_size: int
    workers: int | None
    strict: bool
    progress: Progress
    shared: bool = False
    skipped: SkippedImages = field(default_factory=SkippedImages)

    def batches(self, start: int, done: int) -> Iterator[tuple[Batch, list[dict[str, Tensor]]]]:
        """Batches from candidate `start` on, with their tensors pair by pair."""
        total = len(self.candidates.own)
        self.progress("images", done, total)
        if start >= self.candidates.own.stop:
            return
        for batch in iter_batches(
            self.source,
            self.tower.preprocess,
            batch_size=self.batch_size,
            indices=range(start, self.candidates.own.stop),
            workers=self.workers,
            strict=self.strict,
            skipped=self.skipped,
        ):
            ids = [self.source.ids[index] for index in batch.indices]
            yield batch, captured(self.tower, batch.pixels, self.pairs, ids.__getitem__)
            self.progress("images", batch.indices[-1] + 1 - self.candidates.own.start, total)

    def _lost(self, start: int = 0) -> list[tuple[int, str]]:
        found = []
        for record in self.skipped.records[start:]:
            assert record.index is not None
            found.append((record.index, record.reason))
        return found

    def write_files(
        self,
        infos: list[TraceInfo],
        outs: Sequence[str | Path],
        storage: Storage,
        world: World,
        force: bool,
    ) -> None:
        """Write every trace, or this process's part of it."""
        prefix = "" if world.size == 1 else f"part-{world.rank}-of-{world.size}-"
        with contextlib.ExitStack() as stack:
            for out in outs if storage.shard_images else ():
                stack.enter_context(holding(out, world))
            writers = [
                stack.enter_context(
                    writing(out, info, storage, self.candidates, prefix=prefix, force=force)
                )
                for out, info in zip(outs, infos, strict=True)
            ]
            together = torch.tensor([sum(writer.bytes_needed for writer in writers)])
            world.all_reduce([together])
            if outs:
                require_room(Path(outs[0]), int(together), "the traces")
            self.write(writers)
            for writer in writers:
                finish_together(writer, world)

    def write(self, writers: list[TraceWriter]) -> None:
        """Feed every writer; one whose shards are ahead of the others waits for them.

        Where an interrupted run had everything but a tail of unusable images, that tail is no
        error; nor is it one where other processes have usable ones.
        """
        behind = min(writers, key=lambda writer: writer.cursor)
        start, done = behind.cursor, behind.cursor - self.candidates.own.start
        may_be_none = behind.used or self.shared
        with contextlib.suppress(NoUsableImageError) if may_be_none else contextlib.nullcontext():
            for batch, found in self.batches(start, done):
                for writer, tensors in zip(writers, found, strict=True):
                    if batch.indices[0] >= writer.cursor:
                        writer.add(batch.indices, tensors, self._new(writer))
        for writer in writers:
            writer.skipped += self._new(writer)

    def _new(self, writer: TraceWriter) -> list[tuple[int, str]]:
        """Unusable images that a writer has not been told of."""
        known = {at for at, _ in writer.skipped}
        return [each for each in self._lost() if each[0] not in known]

    def in_memory(self, infos: list[TraceInfo]) -> list[Trace]:
        """Collect all tensors."""
        parts: list[dict[str, list[Tensor]]] = [{} for _ in infos]
        used: list[int] = []
        for batch, found in self.batches(self.candidates.own.start, 0):
            used += batch.indices
            for part, tensors in zip(parts, found, strict=True):
                for name, tensor in tensors.items():
                    part.setdefault(name, []).append(_halved(name, tensor.cpu()))
        content = self.candidates.content(used)
        return [
            Trace.from_tensors(
                info.with_skipped(used, self._lost(), self.source, content),
                {name: torch.cat(tensors) for name, tensors in part.items()},
            )
            for info, part in zip(infos, parts, strict=True)
        ]


def _halved(name: str, tensor: Tensor) -> Tensor:
    """Queries and keys in half precision, as files have them, where they fit."""
    if name not in QUERIES_KEYS:
        return tensor
    half = tensor.half()
    return half if bool(torch.isfinite(half).all()) else tensor


def captured(
    tower: Tower, pixels: Tensor, pairs: Sequence[LayerPair], names: ImageNames = str
) -> list[dict[str, Tensor]]:
    """The traces' tensors of one batch, under the contract's names, on the tower's device.

    Raises
    ------
    XaikitError
        Where a logit is not finite; it names the image.
    """
    hidden: dict[int, tuple[Tensor, Tensor]] = {}
    logits: dict[int, Tensor] = {}
    norms: dict[int, Tensor] = {}
    queries_keys: dict[int, tuple[Tensor, Tensor]] = {}

    def ffn(layer: int) -> FfnTap:
        def tap(inputs: Tensor, gate: Tensor) -> None:
            hidden[layer] = (inputs, gate.to(torch.uint8))

        return tap

    def attention(layer: int) -> AttentionTap:
        def tap(call: AttentionCall) -> None:
            logits[layer] = call.logits()
            queries_keys[layer] = (call.query.float() * call.scale, call.key.float())

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
    for layer in sorted(logits):
        require_finite_logits(logits[layer], layer, names)
    return [
        {
            "h_l": hidden[layer][0],
            "ffn_gate_l": hidden[layer][1],
            "attn_logits_l1": logits[after],
            "residual_norms_l1": norms[after],
            **dict(zip(QUERIES_KEYS, queries_keys[after], strict=True)),
        }
        for layer, after in pairs
    ]
