"""The pass that adds up what fits need, and the draws of permutations behind their null."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.errors import XaikitError
from xaikit.passes.feed import Feed, LayerPair, Visitor
from xaikit.passes.pair_sums import DrawBlocks, PairSums, SumOptions
from xaikit.passes.visitors import Labels, NormMean, PositionMean
from xaikit.statistics.block_null import Draws
from xaikit.statistics.edge_sums import exact_moments
from xaikit.statistics.parts import Part, finished

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.passes.plan import Plan
    from xaikit.progress import Progress


def position_means(
    feed: Feed, plan: Plan, pairs: Sequence[LayerPair], progress: Progress
) -> dict[LayerPair, Tensor]:
    """``M_pos`` of the discovery images of each pair, in one pass; on every process."""
    found = {pair: PositionMean(*_sizes(feed, pair)) for pair in pairs}
    feed.visit(
        plan.of("discovery"),
        {pair: [visitor] for pair, visitor in found.items()},
        what="images averaged",
        progress=progress,
    )
    return shared_means(found, feed.world)


def shared_means(found: Mapping[LayerPair, PositionMean], world: World) -> dict[LayerPair, Tensor]:
    """Add up the means of all processes and give them to each."""
    means = {}
    for pair, visitor in found.items():
        visitor.reduce(world)
        shared = world.broadcast({"mean": visitor.mean} if world.leads else None)
        means[pair] = shared["mean"]
    return means


@dataclass(frozen=True, kw_only=True)
class PairStatistics:
    """What a fit of one pair of layers is put together from.

    Attributes
    ----------
    train, test : Part
        The same object where nothing is held out.
    token_norms : Float[Tensor, "token"]
    null_block : int
        Images within which label maps were permuted; 0 is all.
    """

    train: Part
    test: Part
    token_norms: Tensor
    null_block: int


class SumsPass:
    """One pass over all blocks for several pairs, and as many over the drawn ones as it takes.

    Parameters
    ----------
    labels : mapping of LayerPair to Labels
        A `Visitor` among them is shown the gates first.
    memory : int
        Bytes for the tables of draws.
    """

    def __init__(
        self,
        feed: Feed,
        plan: Plan,
        options: SumOptions,
        means: Mapping[LayerPair, Tensor],
        labels: Mapping[LayerPair, Labels],
        *,
        memory: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.feed, self.plan, self.options = feed, plan, options
        self.means, self.labels, self.device = means, labels, torch.device(device)
        self.pairs = list(means)
        self.shapes = {pair: options.shape(*_sizes(feed, pair)) for pair in self.pairs}
        need = sum(Draws.bytes_needed(s, options.draws) for s in self.shapes.values())
        drawn = options.draws > 0 and bool(plan.drawn)
        self.fused, self.memory = drawn and need <= memory, memory
        self.apart = drawn and not self.fused
        self.sums = {pair: self._sums(pair) for pair in self.pairs}
        self.norms = {pair: NormMean(self.shapes[pair].tokens, device) for pair in self.pairs}

    def _draws(self, pair: LayerPair) -> Draws:
        return Draws(self.shapes[pair], self.options.draws, self.options.seed, self.device)

    def _sums(self, pair: LayerPair) -> PairSums:
        return PairSums(
            self.options,
            self.shapes[pair],
            self.plan,
            self.labels[pair],
            self.means[pair],
            self._draws(pair) if self.fused else None,
            self.device,
        )

    def run(self, progress: Progress, *, name: str = "", what: str = "images fitted") -> None:
        """Read the images and bring everything to the first process."""
        visitors: dict[LayerPair, list[Visitor]] = {}
        for pair in self.pairs:
            labels = self.labels[pair]
            first = [labels] if isinstance(labels, Visitor) else []
            visitors[pair] = [*first, self.norms[pair], self.sums[pair]]
        self.feed.visit(self.plan.blocks, visitors, name=name, what=what, progress=progress)
        for each in visitors.values():
            for visitor in each:
                visitor.reduce(self.feed.world)
        self._require_finite()

    def statistics(
        self, rows: Mapping[LayerPair, dict[str, Tensor]], progress: Progress
    ) -> Iterator[tuple[LayerPair, PairStatistics]]:
        """What each pair's fit is put together from, in the first process; its sums are let go.

        Parameters
        ----------
        rows : mapping of LayerPair to dict of str to Tensor
            Labels of the used images of each part, in the order of candidates.
        """
        for group in self._draw_groups():
            draws = self._drawn(group, progress)
            if self.feed.world.leads:
                for pair in group:
                    found = self._finished(self.sums[pair], pair, rows[pair], draws.pop(pair, None))
                    del self.sums[pair]
                    yield pair, found
                    del found

    def _draw_groups(self) -> list[list[LayerPair]]:
        """Pairs whose tables of draws fit beside one another."""
        if not self.apart:
            return [self.pairs]
        groups: list[list[LayerPair]] = []
        room = 0
        for pair in self.pairs:
            need = Draws.bytes_needed(self.shapes[pair], self.options.draws)
            if not groups or need > room:
                groups.append([])
                room = self.memory
            groups[-1].append(pair)
            room -= need
        return groups

    def _drawn(self, pairs: Sequence[LayerPair], progress: Progress) -> dict[LayerPair, Draws]:
        if not self.apart:
            return {p: s.draws for p, s in self.sums.items() if s.draws is not None}
        made = {
            pair: DrawBlocks(
                self.shapes[pair],
                self.labels[pair],
                self.means[pair],
                self._draws(pair),
                self.device,
            )
            for pair in pairs
        }
        self.feed.visit(
            self.plan.drawn,
            {pair: [visitor] for pair, visitor in made.items()},
            what="images permuted",
            progress=progress,
        )
        for visitor in made.values():
            visitor.reduce(self.feed.world)
        return {pair: visitor.draws for pair, visitor in made.items()}

    def _finished(
        self, found: PairSums, pair: LayerPair, rows: dict[str, Tensor], draws: Draws | None
    ) -> PairStatistics:
        parts = {
            name: finished(sums, rows[name], draws if name == self._tested(rows) else None)
            for name, sums in found.parts.items()
            if len(rows[name])
        }
        if "discovery" not in parts:
            raise XaikitError("none of the discovery images can be used; pass more images")
        exact = exact_moments(self.shapes[pair], self.options.null_block)
        return PairStatistics(
            train=parts["discovery"],
            test=parts[self._tested(rows)],
            token_norms=self.norms[pair].mean,
            null_block=0 if exact else self.plan.block_size,
        )

    def _tested(self, rows: dict[str, Tensor]) -> str:
        # A part all of whose images are unusable is as good as not there.
        return "heldout" if "heldout" in rows and len(rows["heldout"]) else "discovery"

    def _require_finite(self) -> None:
        for (_, after), found in self.sums.items():
            if not all(sums.finite() for sums in found.parts.values()):
                raise XaikitError(
                    f"attention logits of layer {after} are not finite; "
                    "check the weights, or pass `precision=float32`"
                )


def _sizes(feed: Feed, pair: LayerPair) -> tuple[int, int]:
    info = feed.info(pair)
    return info.heads, info.tokens
