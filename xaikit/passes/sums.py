"""The second pass of a streaming run: label every token, add up, and forget the logits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.files import FORMAT_VERSION, read_tensors, write_tensors
from xaikit.errors import UsageError, XaikitError
from xaikit.images import NoUsableImageError, Skipped, iter_batches
from xaikit.progress import Progress
from xaikit.statistics.labelling import Labeller
from xaikit.statistics.streaming import BlockSums
from xaikit.towers import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.images import Batch, ImageSource, SkippedImages
    from xaikit.passes.plan import Plan, StreamOptions
    from xaikit.passes.record import LayerPair
    from xaikit.passes.sample import Learnt
    from xaikit.towers import AttentionCall, AttentionTap, FfnTap, Tower

STAGE = "stream"


class StreamSums:
    """Sums and labels of this process's share of the images, for every pair of layers.

    Attributes
    ----------
    sums : dict of (layer, part) to BlockSums
    labels : dict of int to Int[ndarray, "image token"]
        By layer, in the order images were read, in the smallest integers that hold them.
    order : Int[ndarray, "image"]
        The candidate behind each row of the labels.
    norms : dict of int to Float[Tensor, "token"]
        Sums of the residual stream's norms before each pair's attention.
    """

    def __init__(
        self,
        tower: Tower,
        pairs: list[LayerPair],
        plan: Plan,
        learnt: Learnt,
        options: StreamOptions,
        world: World,
    ) -> None:
        self.tower, self.pairs, self.options = tower, pairs, options
        self.blocks = plan.blocks[world.rank :: world.size]
        self.groups_done = 0
        device, tokens = tower.device, tower.info.tokens
        local = sum(len(block.images) for block in self.blocks)
        self._count = 0
        self._order = np.empty(local, np.int64)
        small = np.uint8 if options.num_clusters <= 256 else np.int16
        self._labels = {layer: np.empty((local, tokens), small) for layer, _ in pairs}
        home = "cpu" if device.type == "mps" else device
        self.norms = {
            layer: torch.zeros(tokens, dtype=torch.float64, device=home) for layer, _ in pairs
        }
        self._labellers = {
            layer: Labeller(
                learnt[f"{layer}/centroids"].numpy(), learnt[f"{layer}/counts"].numpy(), device
            )
            for layer, _ in pairs
        }
        parts = [name for name, images in plan.parts.items() if images]
        self.sums = {
            (layer, part): BlockSums(
                options.num_clusters,
                learnt[f"{layer}/pilot"].to(device),
                destination=options.destination,
                draws=options.num_permutations if plan_draws(plan, part) else 0,
                draw_blocks=plan.draw_blocks,
                seed=options.seed,
                energy=part == "discovery",
            )
            for layer, _ in pairs
            for part in parts
        }

    @property
    def order(self) -> np.ndarray:
        """The candidate behind each row of the labels."""
        return self._order[: self._count]

    def labels(self, layer: int) -> np.ndarray:
        """Labels of a layer in reading order, ``[image, token]``."""
        return self._labels[layer][: self._count]

    def run(
        self,
        source: ImageSource,
        skipped: SkippedImages,
        progress: Progress,
        checkpoint: Callable[[], None],
    ) -> None:
        """Read the images that are left, calling `checkpoint` now and then between passes."""
        step = self.options.blocks_a_pass
        left = self.blocks[self.groups_done * step :]
        if not left:
            return
        total, last = len(self._order), time.monotonic()
        batches = iter_batches(
            source,
            self.tower.preprocess,
            batch_size=self.options.block * step,
            indices=np.concatenate([block.images for block in left]).tolist(),
            workers=self.options.workers,
            strict=self.options.strict,
            skipped=skipped,
        )
        try:
            for group, images, pixels in self._groups(uploaded(batches, self.tower.device)):
                self._add(group, images, pixels)
                self.groups_done = group + 1
                progress("images", self._count, total)
                if time.monotonic() - last >= self.options.checkpoint_seconds:
                    self._require_finite()
                    checkpoint()
                    last = time.monotonic()
        except NoUsableImageError:
            # Images may be all in other processes, or have been read before an interruption.
            pass
        self._require_finite()

    def _groups(
        self, batches: Iterator[tuple[list[int], Tensor]]
    ) -> Iterator[tuple[int, np.ndarray, Tensor]]:
        """Cut batches, which close up over unusable images, at the planned passes."""
        step = self.options.blocks_a_pass
        group_of = {}
        for at, block in enumerate(self.blocks):
            group_of.update(dict.fromkeys(block.images.tolist(), at // step))
        held: list[tuple[np.ndarray, Tensor]] = []
        current = -1
        for indices, pixels in batches:
            groups = np.array([group_of[index] for index in indices])
            for group in np.unique(groups).tolist():
                if held and group != current:
                    yield current, *_joined(held)
                    held = []
                rows = np.flatnonzero(groups == group)
                part = slice(int(rows[0]), int(rows[-1]) + 1)
                held.append((np.array(indices[part]), pixels[part]))
                current = group
        if held:
            yield current, *_joined(held)

    def _add(self, group: int, images: np.ndarray, pixels: Tensor) -> None:
        step = self.options.blocks_a_pass
        places: list[tuple[str, int, slice]] = []
        start = 0
        for block in self.blocks[group * step : (group + 1) * step]:
            stop = start + int(np.isin(images, block.images).sum())
            if stop > start:
                places.append((block.part, block.number, slice(start, stop)))
            start = stop
        labels: dict[int, Tensor] = {}
        following = {after for _, after in self.pairs}
        capture(
            self.tower,
            pixels,
            ffn={layer: self._ffn(layer, labels) for layer, _ in self.pairs},
            attention={after: self._attention(after, labels, places) for after in following},
            residual={after: self._residual(after) for after in following},
        )
        rows = slice(self._count, self._count + len(images))
        self._order[rows] = images
        for layer, found in labels.items():
            self._labels[layer][rows] = found.cpu().numpy()
        self._count = rows.stop

    def _ffn(self, layer: int, labels: dict[int, Tensor]) -> FfnTap:
        def tap(_inputs: Tensor, gate: Tensor) -> None:
            labels[layer] = self._labellers[layer](gate)

        return tap

    def _residual(self, after: int) -> Callable[[Tensor], None]:
        def tap(stream: Tensor) -> None:
            norms = stream.float().norm(dim=-1).sum(0)
            for layer, following in self.pairs:
                if following == after:
                    self.norms[layer] += norms.to(self.norms[layer].device, torch.float64)

        return tap

    def _attention(
        self, after: int, labels: dict[int, Tensor], places: list[tuple[str, int, slice]]
    ) -> AttentionTap:
        def tap(call: AttentionCall) -> None:
            for layer, following in self.pairs:
                if following != after:
                    continue
                for part, number, rows in places:
                    self.sums[layer, part].add(
                        labels[layer][rows],
                        lambda heads, rows=rows: call.logits_of(rows, heads),  # type: ignore[misc]
                        number,
                    )

        return tap

    def _require_finite(self) -> None:
        after = dict(self.pairs)
        for (layer, _), sums in self.sums.items():
            if not sums.finite():
                raise XaikitError(
                    f"attention logits of layer {after[layer]} are not finite; "
                    "check the weights, or pass --precision float32"
                )

    def reduce(self, world: World) -> None:
        """Add up the sums of all processes."""
        for sums in self.sums.values():
            world.all_reduce(sums.totals.values())
        world.all_reduce(self.norms.values())

    def save(self, path: Path, key: str, skipped: SkippedImages) -> None:
        """Keep everything, so that another run can go on from here to the last bit."""
        tensors = {
            f"sums/{layer}/{part}/{name}": total
            for (layer, part), sums in self.sums.items()
            for name, total in sums.totals.items()
        }
        tensors |= {f"norms/{layer}": total for layer, total in self.norms.items()}
        tensors |= {
            f"labels/{layer}": torch.from_numpy(self.labels(layer)) for layer, _ in self.pairs
        }
        tensors["order"] = torch.from_numpy(self.order)
        fields: dict[str, Any] = {
            "stage": STAGE,
            "format_version": FORMAT_VERSION,
            "key": key,
            "groups_done": self.groups_done,
            "skipped": [[item.id, item.reason] for item in skipped],
        }
        write_tensors(path, tensors, fields)

    def resume(self, path: Path, key: str, skipped: SkippedImages) -> bool:
        """Take over what an interrupted run of the same kind kept; say whether there was any."""
        try:
            fields, tensors = read_tensors(path, STAGE)
        except UsageError:
            return False
        if fields.get("key") != key:
            return False
        for (layer, part), sums in self.sums.items():
            prefix = f"sums/{layer}/{part}/"
            sums.load({name: tensors[prefix + name] for name in sums.totals})
        for layer, total in self.norms.items():
            total.copy_(tensors[f"norms/{layer}"])
        self._count = len(tensors["order"])
        self._order[: self._count] = tensors["order"].numpy()
        for layer, _ in self.pairs:
            self._labels[layer][: self._count] = tensors[f"labels/{layer}"].numpy()
        self.groups_done = int(fields["groups_done"])
        skipped.records.extend(Skipped(*item) for item in fields["skipped"])
        return True


def plan_draws(plan: Plan, part: str) -> bool:
    """Whether permutations are sampled for a part: the tested one, if it can be permuted."""
    return part == plan.tested and len(plan.parts[part]) > 1


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


def _joined(held: list[tuple[np.ndarray, Tensor]]) -> tuple[np.ndarray, Tensor]:
    if len(held) == 1:
        return held[0]
    return np.concatenate([part for part, _ in held]), torch.cat([part for _, part in held])
