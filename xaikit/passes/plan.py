"""Which images a pass reads, in what order, and what each is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xaikit.images import stratified_split
from xaikit.statistics.edge_sums import NULL_BLOCK, NULL_IMAGES
from xaikit.statistics.sampling import random_blocks

if TYPE_CHECKING:
    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.distributed import World

PARTS = ("discovery", "heldout")


@dataclass(frozen=True)
class PlannedBlock:
    """Images that are read together.

    Attributes
    ----------
    part : str
        ``discovery`` or ``heldout``.
    number : int
        Among the blocks of its part.
    images : Int[ndarray, "image"]
        Candidates, ascending; those that cannot be used are left out when they are read.
    group : int
        Blocks of one group are read by one process; it also names the lane of float32 sums.
    drawn : bool
        Whether permutations are sampled on it.
    """

    part: str
    number: int
    images: np.ndarray
    group: int = 0
    drawn: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Parts and blocks of the candidates, before any image is read.

    Both are of the *candidates*, usable or not, so that a pass which only finds out on the way
    which images can be used plans as one that knows.

    Attributes
    ----------
    candidates : int
    parts : dict of str to list of int
        Candidates of ``discovery`` and ``heldout``, ascending.
    blocks : list of PlannedBlock
        In the order they are read.
    block_size : int
    """

    candidates: int
    parts: dict[str, list[int]]
    blocks: list[PlannedBlock]
    block_size: int

    @property
    def tested(self) -> str:
        """The part that tests run on."""
        return "heldout" if self.parts["heldout"] else "discovery"

    def of(self, part: str) -> list[PlannedBlock]:
        """Blocks of one part."""
        return [block for block in self.blocks if block.part == part]

    @property
    def drawn(self) -> list[PlannedBlock]:
        """Blocks that permutations are sampled on."""
        return [block for block in self.blocks if block.drawn]


def make_plan(parts: Mapping[str, Sequence[int]], null_block: int, seed: int) -> Plan:
    """Cut each part into random blocks.

    Parameters
    ----------
    parts : mapping of str to sequence of int
        Candidates of ``discovery`` and ``heldout``.
    null_block : int
        Images of a block; 0 is `NULL_BLOCK`.
    """
    size = null_block or NULL_BLOCK
    kept = {name: sorted(int(i) for i in parts.get(name, ())) for name in PARTS}
    tested = "heldout" if kept["heldout"] else "discovery"
    drawn = max(1, NULL_IMAGES // size)
    blocks = [
        PlannedBlock(
            part=name,
            number=number,
            images=np.asarray(kept[name])[chosen],
            group=number // drawn,
            drawn=name == tested and number < drawn and len(kept[name]) > 1,
        )
        for name in PARTS
        if kept[name]
        for number, chosen in enumerate(random_blocks(len(kept[name]), size, seed))
    ]
    return Plan(
        candidates=sum(len(each) for each in kept.values()),
        parts=kept,
        blocks=blocks,
        block_size=size,
    )


def split_candidates(
    ids: Sequence[str], groups: Sequence[str] | None, holdout: float, seed: int
) -> dict[str, list[int]]:
    """Candidates of each part, stratified by group."""
    found = stratified_split(list(ids), list(groups) if groups else None, holdout, seed)
    return dict(zip(PARTS, found, strict=True))


def parts_of(
    info: TraceInfo, discovery: Sequence[int], heldout: Sequence[int], lost: Sequence[int]
) -> dict[str, list[int]]:
    """Candidates of each part, from the used images of each.

    Parameters
    ----------
    discovery, heldout : sequence of int
        Used images, as features list them.
    lost : sequence of int
        Candidates that could not be used and would have been held out.
    """
    used = info.candidate_positions()
    unusable = set(info.skipped_at)
    held = [int(used[i]) for i in heldout] + [int(i) for i in lost]
    other = [int(used[i]) for i in discovery] + sorted(unusable - set(lost))
    return {"discovery": sorted(other), "heldout": sorted(held)}


def own_blocks(blocks: Sequence[PlannedBlock], world: World) -> list[PlannedBlock]:
    """The blocks that this process reads: groups in turns, the parts' turns apart."""
    return [
        block
        for block in blocks
        if (block.group + PARTS.index(block.part)) % world.size == world.rank
    ]
