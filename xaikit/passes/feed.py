"""One feed: a stored trace and a running model are the same thing to statistics.

A feed reads planned blocks of images and shows them to visitors, pair of layers by pair of layers:
first the gates, then the residual norms, then the attention. What a visitor adds up cannot
depend on where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from xaikit.distributed import World
from xaikit.passes.plan import PlannedBlock
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import Trace
    from xaikit.artifacts.trace_info import TraceInfo

LayerPair = tuple[int, int]
"""The layer whose FFN is read and the layer whose attention is read."""

GATES, NORMS, ATTENTION = "gates", "norms", "attention"


@dataclass(frozen=True)
class SeenBlock:
    """A planned block and the candidates of it that could be read, ascending."""

    planned: PlannedBlock
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class Attention(Protocol):
    """Attention of a block's images before the softmax."""

    def logits(self, heads: slice) -> Tensor:
        """Logits of some heads ``[head, image, token, token]`` float32; the caller's to change."""
        ...

    def queries(self) -> Tensor:
        """Scaled queries ``[image, head, token, dim]``."""
        ...

    def keys(self) -> Tensor:
        """Keys ``[image, head, token, dim]``."""
        ...


class Visitor:
    """What is shown the blocks of one pair of layers.

    Subclasses say in `needs` what they are to be shown, and keep what they learn in tensors that
    `state` and `load` carry over an interruption.
    """

    needs: frozenset[str] = frozenset()

    def gates(self, block: SeenBlock, gates: Tensor) -> None:
        """Gates ``[image, token, ffn]``, uint8 or bool."""

    def norms(self, block: SeenBlock, norms: Tensor) -> None:
        """Norms of the residual stream before the attention ``[image, token]``."""

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """The attention of the block."""

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""

    def reduce(self, world: World) -> None:
        """Bring what all processes learnt to the first one."""


Visitors = Mapping[LayerPair, Sequence[Visitor]]


class Feed(Protocol):
    """Where blocks come from.

    Attributes
    ----------
    world : World
        The processes that share the blocks; `visit` reads this process's.
    """

    world: World

    def info(self, pair: LayerPair) -> TraceInfo:
        """Images and sizes; of a running model, those met so far."""
        ...

    def visit(
        self,
        blocks: Sequence[PlannedBlock],
        visitors: Visitors,
        *,
        name: str = "",
        what: str = "images",
        progress: Progress = silent,
    ) -> None:
        """Show this process's share of the blocks to the visitors of each pair.

        Parameters
        ----------
        name : str
            Under which an interrupted pass is kept and found again; none where empty.
        """
        ...


def wanted(visitors: Sequence[Visitor], what: str) -> list[Visitor]:
    """The visitors that are to be shown something."""
    return [visitor for visitor in visitors if what in visitor.needs]


class StoredFeed:
    """Blocks of one or several traces of the same images."""

    def __init__(self, *traces: Trace) -> None:
        self.world = World()
        self._traces = {(trace.layer, trace.next_layer): trace for trace in traces}

    def info(self, pair: LayerPair) -> TraceInfo:
        """Images and sizes of a pair's trace."""
        return self._traces[pair].info

    def visit(
        self,
        blocks: Sequence[PlannedBlock],
        visitors: Visitors,
        *,
        name: str = "",
        what: str = "images",
        progress: Progress = silent,
    ) -> None:
        """Show the blocks, see `Feed`; nothing needs to be kept of a pass over files."""
        total = sum(len(block.images) for block in blocks)
        for pair, each in visitors.items():
            trace = self._traces[pair]
            used = trace.info.candidate_positions()
            done = 0
            for block in blocks:
                rows = np.searchsorted(used, block.images)
                there = (rows < len(used)) & (used[np.minimum(rows, len(used) - 1)] == block.images)
                done += len(block.images)
                if there.any():
                    seen = SeenBlock(block, block.images[there])
                    _show(trace, rows[there], seen, each)
                progress(what, done, total)


def _show(trace: Trace, rows: np.ndarray, seen: SeenBlock, visitors: Sequence[Visitor]) -> None:
    if for_gates := wanted(visitors, GATES):
        gates = trace.gates_of(rows)
        for visitor in for_gates:
            visitor.gates(seen, gates)
    if for_norms := wanted(visitors, NORMS):
        norms = trace.residual_norms_of(rows)
        if norms is not None:
            for visitor in for_norms:
                visitor.norms(seen, norms)
    for visitor in wanted(visitors, ATTENTION):
        visitor.attention(seen, _StoredAttention(trace, rows))


@dataclass(frozen=True)
class _StoredAttention:
    trace: Trace
    rows: np.ndarray

    def logits(self, heads: slice) -> Tensor:
        return self.trace.logits_of(self.rows, heads).transpose(0, 1)

    def queries(self) -> Tensor:
        return self.trace.queries_of(self.rows)

    def keys(self) -> Tensor:
        return self.trace.keys_of(self.rows)


def chunks(images: np.ndarray, size: int) -> list[PlannedBlock]:
    """Blocks of a few images each in ascending order, for passes whose blocks mean nothing."""
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    return [PlannedBlock("discovery", at, part, group=at) for at, part in enumerate(parts)]
