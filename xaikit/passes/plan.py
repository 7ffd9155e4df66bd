"""Which images a streaming run reads, in what order, and what each is for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.options import checked
from xaikit.images import stratified_split
from xaikit.stages.cluster import ClusterOptions
from xaikit.stages.fit import FitOptions
from xaikit.statistics.pairs import random_blocks
from xaikit.statistics.sampling import sample_plan
from xaikit.statistics.streaming import NULL_BLOCK, draw_blocks

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.passes.record import LayerPair
    from xaikit.towers import Tower

CHECKPOINT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Options of a streaming run.

    Attributes
    ----------
    max_images : int, optional
        Only so many candidates are read, the first in order, usable or not.
    batch_size : int
        Images of a forward pass; it takes whole blocks, at least one.
    null_block : int
        Images within which label maps are permuted; 0 is `NULL_BLOCK`.
    checkpoint_seconds : float
        Between two checkpoints.
    """

    max_images: int | None = None
    batch_size: int = 32
    workers: int | None = None
    strict: bool = False
    num_clusters: int = 16
    sample_tokens: int = 20000
    seed: int = 0
    holdout: float = 0.5
    destination: str = "token"
    num_permutations: int = 200
    null: str = "auto"
    null_block: int = 0
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @property
    def block(self) -> int:
        """Images of a block."""
        return self.null_block or NULL_BLOCK

    @property
    def blocks_a_pass(self) -> int:
        """Blocks of one forward pass."""
        return max(1, self.batch_size // self.block)

    def deciding(self) -> dict[str, object]:
        """The options that decide the result."""
        idle = ("batch_size", "workers", "strict", "checkpoint_seconds")
        return {name: value for name, value in asdict(self).items() if name not in idle}


@dataclass(frozen=True)
class PlannedBlock:
    """One block: its part (``discovery`` or ``heldout``), its number there, its candidates."""

    part: str
    number: int
    images: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A streaming run, before any image is read.

    Attributes
    ----------
    parts : dict of str to list of int
        Candidates of ``discovery`` and ``heldout``, ascending. The split is of the candidates,
        since which are usable is not known yet; where all are, it is the stored route's.
    sample : list of (int, ndarray)
        Candidates whose tokens clusters are learnt on, and which tokens.
    blocks : list of PlannedBlock
        In the order they are read.
    draw_blocks : int
        Blocks of the tested part that permutations are sampled on.
    """

    parts: dict[str, list[int]]
    sample: list[tuple[int, np.ndarray]]
    blocks: list[PlannedBlock]
    draw_blocks: int

    @property
    def tested(self) -> str:
        """The part that tests run on."""
        return "heldout" if self.parts["heldout"] else "discovery"

    @property
    def images(self) -> int:
        """Number of candidates."""
        return sum(len(part) for part in self.parts.values())


def make_plan(source: ImageSource, tokens: int, options: StreamOptions) -> Plan:
    """Split, sample and order the candidates.

    Raises
    ------
    UsageError
        Where an option is out of range.
    """
    o = options
    count = min(len(source), o.max_images or len(source))
    clusters = ClusterOptions(
        num_clusters=o.num_clusters, sample_tokens=o.sample_tokens, holdout=o.holdout, seed=o.seed
    )
    checked(clusters).check_rows(count * tokens)
    checked(
        FitOptions(
            destination=o.destination,
            null=o.null,
            num_permutations=o.num_permutations,
            null_block=o.null_block,
        )
    )
    groups = source.groups
    discovery, heldout = stratified_split(
        source.ids[:count], groups[:count] if groups else None, o.holdout, o.seed
    )
    parts = {"discovery": discovery, "heldout": heldout}
    blocks = [
        PlannedBlock(name, number, np.asarray(images)[chosen])
        for name, images in parts.items()
        if images
        for number, chosen in enumerate(random_blocks(len(images), o.block, o.seed))
    ]
    return Plan(
        parts=parts,
        sample=sample_plan(discovery, tokens, o.sample_tokens, o.seed),
        blocks=blocks,
        draw_blocks=draw_blocks(len(heldout or discovery), o.block),
    )


def run_key(
    tower: Tower, source: ImageSource, pairs: list[LayerPair], options: StreamOptions
) -> str:
    """Hash of all that decides a streaming run's sums."""
    return fingerprint(
        tower.weights_fingerprint,
        tower.precision,
        asdict(tower.preprocess),
        list(source.ids),
        source.groups,
        pairs,
        options.deciding(),
    )
