"""The first pass of a streaming run: gates of a sample of tokens, clustered layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.errors import XaikitError
from xaikit.images import NoUsableImageError, iter_batches
from xaikit.progress import Progress
from xaikit.statistics.kmeans import kmeans
from xaikit.towers import capture

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.images import Batch, ImageSource, SkippedImages
    from xaikit.passes.plan import Plan, StreamOptions
    from xaikit.passes.record import LayerPair
    from xaikit.towers import AttentionCall, AttentionTap, FfnTap, Tower

Learnt = dict[str, torch.Tensor]
"""``<layer>/centroids``, ``counts``, ``inertia``, ``distinct`` and ``pilot``, on the CPU."""


def learn(
    tower: Tower,
    source: ImageSource,
    pairs: list[LayerPair],
    plan: Plan,
    options: StreamOptions,
    world: World,
    skipped: SkippedImages,
    progress: Progress,
) -> Learnt:
    """Cluster the gates of the plan's sample, and average the logits of some of its images.

    The averages are pilot means, about which the second pass takes its sums: of one batch, or,
    for cluster destinations, whose energies are about the pilot, of all the sample's images.

    Returns
    -------
    dict of str to Tensor
        The same in every process.
    """
    sample = _Sample(tower, pairs, plan)
    batches = _share(len(plan.sample), options.batch_size, world)
    rows = slice(batches.start * options.batch_size, batches.stop * options.batch_size)
    indices = [image for image, _ in plan.sample[rows]]
    done, whole = 0, options.destination == "cluster"
    try:
        for batch in iter_batches(
            source,
            tower.preprocess,
            batch_size=options.batch_size,
            indices=indices,
            workers=options.workers,
            strict=options.strict,
            skipped=skipped,
        ):
            sample.add(batch, pilot=whole or done == 0)
            done += len(batch)
            progress("images sampled", done, len(indices))
    except NoUsableImageError:
        # Another process may have usable ones.
        pass
    world.all_reduce(sample.pilots.values())
    world.all_reduce([sample.pilot_images])
    if not float(sample.pilot_images):
        first = "".join(f"; the first is {item.id}: {item.reason}" for item in skipped.records[:1])
        raise XaikitError(
            f"none of the {len(plan.sample)} images that clusters are learnt on can be used{first}"
        )
    found = _clustered(sample, pairs, options, world, progress)
    found = world.broadcast(found)
    for layer, _ in pairs:
        pilot = sample.pilots[layer] / sample.pilot_images.clamp(min=1)
        found[f"{layer}/pilot"] = pilot.float().cpu()
    return found


def _share(images: int, batch_size: int, world: World) -> range:
    """This process's batches: in order of rank they are in order of images."""
    batches = -(-images // batch_size)
    return range(batches * world.rank // world.size, batches * (world.rank + 1) // world.size)


class _Sample:
    """Gates, eight to a byte, and sums of logits of the sample's images."""

    def __init__(self, tower: Tower, pairs: list[LayerPair], plan: Plan) -> None:
        info = tower.info
        self.tower, self.pairs = tower, pairs
        self.rows = dict(plan.sample)
        self.gates: dict[int, list[np.ndarray]] = {layer: [] for layer, _ in pairs}
        shape = (info.heads, info.tokens, info.tokens)
        home = "cpu" if tower.device.type == "mps" else tower.device
        self.pilots = {
            layer: torch.zeros(shape, dtype=torch.float64, device=home) for layer, _ in pairs
        }
        self.pilot_images = torch.zeros((), dtype=torch.float64, device=home)

    def add(self, batch: Batch, *, pilot: bool) -> None:
        tokens = self.tower.info.tokens
        wanted = np.concatenate(
            [self.rows[index] + at * tokens for at, index in enumerate(batch.indices)]
        )
        chosen = torch.from_numpy(wanted)

        def ffn(layer: int) -> FfnTap:
            def tap(_inputs: Tensor, gate: Tensor) -> None:
                gates = gate.flatten(0, 1)[chosen.to(gate.device)].cpu().numpy()
                self.gates[layer].append(np.packbits(gates, axis=1))

            return tap

        attention: dict[int, AttentionTap] = {}
        if pilot:
            self.pilot_images += len(batch)
            attention = {after: self._pilot(after) for _, after in self.pairs}
        capture(
            self.tower,
            batch.pixels,
            ffn={layer: ffn(layer) for layer, _ in self.pairs},
            attention=attention,
        )

    def _pilot(self, after: int) -> AttentionTap:
        def tap(call: AttentionCall) -> None:
            for head in range(call.query.shape[1]):
                logits = call.logits_of(slice(None), slice(head, head + 1))[0].sum(0)
                for layer, following in self.pairs:
                    if following == after:
                        total = self.pilots[layer]
                        total[head] += logits.to(total.device, torch.float64)

        return tap

    def packed(self, layer: int) -> Tensor:
        """Sampled gates of a layer, eight to a byte ``[row, byte]``."""
        width = -(-self.tower.info.ffn_width // 8)
        return torch.from_numpy(
            np.concatenate([np.empty((0, width), np.uint8), *self.gates[layer]])
        )


def _clustered(
    sample: _Sample,
    pairs: list[LayerPair],
    options: StreamOptions,
    world: World,
    progress: Progress,
) -> Learnt | None:
    """k-means of every layer, on rank 0; None elsewhere."""
    found: Learnt = {}
    width = sample.tower.info.ffn_width
    for done, (layer, _) in enumerate(pairs):
        parts = world.gather({"gates": sample.packed(layer)})
        sample.gates[layer].clear()
        if not world.leads:
            continue
        packed = np.concatenate([part["gates"].numpy() for part in parts])
        gates = np.unpackbits(packed, axis=1, count=width)
        result = kmeans(gates, options.num_clusters, seed=options.seed)
        found |= {
            f"{layer}/centroids": torch.from_numpy(np.ascontiguousarray(result.centroids)),
            f"{layer}/counts": torch.from_numpy(result.counts),
            f"{layer}/inertia": torch.tensor(float(result.inertia), dtype=torch.float64),
            f"{layer}/distinct": torch.tensor(result.distinct_points),
        }
        progress("layers clustered", done + 1, len(pairs))
    return found if world.leads else None
