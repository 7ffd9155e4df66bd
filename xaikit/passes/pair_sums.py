"""What is added up for a fit of one pair of layers, and the draws of permutations beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.passes.feed import ATTENTION, Attention, SeenBlock, Visitor
from xaikit.passes.visitors import Labels
from xaikit.statistics.block_null import Draws, EdgeShape
from xaikit.statistics.edge_sums import EdgeSums, exact_moments, shuffle_count

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.passes.plan import Plan


@dataclass(frozen=True, kw_only=True)
class SumOptions:
    """What is added up.

    Attributes
    ----------
    clusters : int
    destination : str
        ``token`` or ``cluster``.
    draws : int
        Permutations to sample.
    null_block : int
        As asked for; 0 chooses (see `xaikit.statistics.edge_sums.exact_moments`).
    seed : int
    controls : bool
        Also add up shuffled labels.
    """

    clusters: int
    destination: str
    draws: int
    null_block: int
    seed: int
    controls: bool = True

    def shape(self, heads: int, tokens: int) -> EdgeShape:
        """Sizes of a pair's tables of edges."""
        return EdgeShape(self.clusters, heads, tokens, self.destination == "cluster")


class PairSums(Visitor):
    """Sums of both parts of the images, for one pair of layers.

    Parameters
    ----------
    labels : Labels
        Shown the gates before this visitor is shown the attention, or known already.
    mean : Float[Tensor, "head token token"]
        ``M0``: the position-only mean of the discovery images.
    draws : Draws, optional
        Filled on the drawn blocks where it is given.
    """

    needs = frozenset({ATTENTION})

    def __init__(
        self,
        options: SumOptions,
        shape: EdgeShape,
        plan: Plan,
        labels: Labels,
        mean: Tensor,
        draws: Draws | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.labels, self.draws = labels, draws
        self.parts = {
            name: EdgeSums(
                shape,
                mean,
                energy=name == "discovery",
                exact=exact_moments(shape, options.null_block),
                seed=options.seed,
                shuffles=shuffle_count(shape) if options.controls else 0,
                device=device,
            )
            for name, images in plan.parts.items()
            if images
        }

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """Add a block."""
        planned = block.planned
        self.parts[planned.part].add(
            self.labels.of(block),
            attention.logits,
            planned.number,
            self.draws if planned.drawn else None,
            planned.group,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        found = {f"{name}/{k}": t for name, s in self.parts.items() for k, t in s.state().items()}
        if self.draws is not None:
            found |= {f"draws/{k}": t for k, t in self.draws.state().items()}
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        for name, sums in self.parts.items():
            sums.load(_under(state, name))
        if self.draws is not None:
            self.draws.load(_under(state, "draws"))

    def reduce(self, world: World) -> None:
        """Add up all processes' sums."""
        for sums in self.parts.values():
            sums.reduce(world)
        if self.draws is not None:
            self.draws.reduce(world)


class DrawBlocks(Visitor):
    """The draws alone, where their tables are too large to be filled beside the sums."""

    needs = frozenset({ATTENTION})

    def __init__(
        self, shape: EdgeShape, labels: Labels, mean: Tensor, draws: Draws, device: torch.device
    ) -> None:
        self.labels, self.draws = labels, draws
        self._sums = EdgeSums(shape, mean, null=False, device=device)

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """Add a block."""
        self._sums.add(self.labels.of(block), attention.logits, block.planned.number, self.draws)

    def reduce(self, world: World) -> None:
        """Bring the draws to the first process."""
        self.draws.reduce(world)


def _under(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
