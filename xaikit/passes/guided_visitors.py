"""What guided clusters are learnt from, as it is added up block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.passes.feed import ATTENTION, GATES, Attention, SeenBlock, Visitor
from xaikit.statistics.guided_sums import GuidedSums
from xaikit.statistics.guided_targets import pattern_strengths

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.statistics.prefix import PrefixClusters


class MomentSums(Visitor):
    """`GuidedSums` of the learning images among those shown."""

    needs = frozenset({GATES, ATTENTION})

    def __init__(
        self, images: Sequence[int], shared: PrefixClusters, device: torch.device | str = "cpu"
    ) -> None:
        self._images, self._first, self._device = np.array(images), shared.tokens, device
        self._held: list[tuple[SeenBlock, Tensor]] = []
        self.sums: GuidedSums | None = None

    def gates(self, block: SeenBlock, gates: Tensor) -> None:
        """Remember the gates until the attention comes."""
        self._held.append((block, gates[:, self._first :]))

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """Add a block."""
        # The gates of all blocks of a forward pass come before the attention of the first.
        (gates,) = (found for held, found in self._held if held is block)
        self._held = [each for each in self._held if each[0] is not block]
        rows = torch.from_numpy(np.flatnonzero(np.isin(block.images, self._images)))
        if not len(rows):
            return
        rows = rows.to(gates.device)
        # Half precision, as a trace stores them: stored and streamed, the same numbers.
        query, key = (
            part[rows][:, :, self._first :].half()
            for part in (attention.queries(), attention.keys())
        )
        if self.sums is None:
            self.sums = GuidedSums(
                gates.shape[2], query.shape[1], query.shape[3], gates.shape[1], self._device
            )
        self.sums.add(gates[rows], query, key)

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        return {} if self.sums is None else self.sums.totals

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        if state:
            self.sums = self._blank(state)
            self.sums.load(state)

    def _blank(self, totals: dict[str, Tensor]) -> GuidedSums:
        heads, dim, _ = totals["query_query"].shape
        patches, ffn = totals["gates"].shape
        return GuidedSums(ffn, heads, dim, patches, self._device)

    def reduce(self, world: World) -> None:
        """Add up all processes' sums, on the first one."""
        for part in world.gather(self.state())[1:]:
            if not part:
                continue
            if self.sums is None:
                self.sums = self._blank(part)
            for name, total in self.sums.totals.items():
                total += part[name].to(total.device)


class PatternStrengths(Visitor):
    """`pattern_strengths` of every image shown."""

    needs = frozenset({ATTENTION})

    def __init__(self, mean: Tensor, shared: PrefixClusters) -> None:
        self._mean, self._first = mean.float(), shared.tokens
        self.found: dict[int, Tensor] = {}

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """Take a block's patterns, head by head."""
        sides = []
        for head in range(len(self._mean)):
            logits = attention.logits(slice(head, head + 1)).transpose(0, 1)
            mean = self._mean[head : head + 1].to(logits.device)
            sides.append(pattern_strengths(logits, mean, self._first).cpu())
        # Rows of all heads, then columns of all heads.
        joined = torch.stack(sides, dim=-1).flatten(2)
        for image, strengths in zip(block.images.tolist(), joined, strict=True):
            self.found[image] = strengths
