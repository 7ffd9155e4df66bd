"""Everything a fit needs of a part of the images, accumulated one block of images at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.progress import Progress, silent
from xaikit.statistics.block_edges import Block
from xaikit.statistics.pair_edges import PairEdges
from xaikit.statistics.pairs import random_blocks
from xaikit.statistics.sums import LogitSums
from xaikit.statistics.token_edges import TokenEdges

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.statistics.edge_null import EdgeNull, LogitSource

NULL_BLOCK = 32
"""Images within which label maps are permuted when streaming."""
NULL_IMAGES = 128
"""At most so many images are permuted by sampling."""

Read = Callable[[slice], "Float[Tensor, 'head image token token']"]
"""Logits of some heads of a block, which the reader may overwrite."""


class BlockSums:
    """`LogitSums` and the permutation null of one part of the images, in one pass.

    Logits are taken about a pilot mean `M0`, so that float32 sums within a block lose nothing
    that matters; blocks add up in float64. Memory does not depend on the number of images.

    Parameters
    ----------
    clusters : int
    pilot : Float[Tensor, "head token token"]
        `M0`, roughly the position-only mean; it decides rounding, not results.
    destination : str
        ``token`` or ``cluster``.
    draws, draw_blocks, seed : int
        Permutations to sample, on the blocks numbered below `draw_blocks`.
    energy : bool
        Whether edges' energies are wanted (of the images that circuits are chosen on).
    """

    def __init__(
        self,
        clusters: int,
        pilot: Float[Tensor, "head token token"],
        *,
        destination: str = "token",
        draws: int = 0,
        draw_blocks: int = 0,
        seed: int = 0,
        energy: bool = False,
    ) -> None:
        heads, tokens, _ = pilot.shape
        self.pilot = pilot.float()
        self.clusters = clusters
        kind = TokenEdges if destination == "token" else PairEdges
        self.edges: TokenEdges | PairEdges = kind(
            clusters,
            heads,
            tokens,
            draws=draws,
            draw_blocks=draw_blocks,
            seed=seed,
            energy=energy,
            device=pilot.device,
        )
        for name, shape in {
            "images": (),
            "square": (),
            "position_counts": (clusters, tokens),
            "position": (heads, tokens, tokens),
            "sums": (clusters, heads, tokens),
        }.items():
            self.edges._new(name, *shape)
        # A CPU's caches hold one head of a block; a GPU wants fewer, larger products.
        self._heads_at_once = 1 if pilot.device.type == "cpu" else heads

    @property
    def totals(self) -> dict[str, Tensor]:
        """All that accumulates; those of disjoint blocks add up."""
        return self.edges.totals

    def load(self, totals: dict[str, Tensor]) -> None:
        """Go on from totals that were kept."""
        for name, tensor in self.totals.items():
            tensor.copy_(totals[name])

    def add(self, labels: Int[Tensor, "image token"], read: Read, number: int) -> None:
        """Add block `number` of this part of the images."""
        block = Block(labels, self.clusters, number)
        self._plus("images", torch.tensor(float(block.images)))
        self._plus("position_counts", block.position_counts)
        self.edges.begin(block)
        heads = len(self.pilot)
        for start in range(0, heads, self._heads_at_once):
            self._add_heads(block, slice(start, min(start + self._heads_at_once, heads)), read)

    def _add_heads(self, block: Block, heads: slice, read: Read) -> None:
        pilot = self.pilot[heads]
        residual = read(heads).sub_(pilot.unsqueeze(1))
        by_position = residual.sum(1)
        flat = residual.reshape(len(residual), -1, residual.shape[-1])
        by_cluster = block.rows @ flat
        self._plus("position", by_position, heads)
        self.edges._accumulate("sums", heads, by_cluster)
        self.edges.add(block, heads, residual, by_position, by_cluster, pilot)
        squares = residual.square_()
        energy = block.rows @ squares.reshape(flat.shape)
        self._plus("square", energy.sum())
        self.edges.add_squares(block, heads, energy, squares)

    def _plus(self, name: str, part: Tensor, rows: slice | None = None) -> None:
        total = self.totals[name]
        part = part.to(total.device, torch.float64)
        if rows is None:
            total += part
        else:
            total[rows] += part

    def finite(self) -> bool:
        """Whether every logit so far was a finite number."""
        return bool(torch.isfinite(self.totals["square"]))

    def sums(self) -> LogitSums:
        """The sums about zero, on the CPU."""
        total = {name: tensor.cpu() for name, tensor in self.totals.items() if name != "draws"}
        pilot = self.pilot.cpu().double()
        heads, tokens, _ = pilot.shape
        found = LogitSums(self.clusters, heads, tokens)
        found.images = round(float(total["images"]))
        found.position_counts = total["position_counts"]
        found.counts = found.position_counts.sum(1)
        found.sums = total["sums"] + found.position_share(pilot)
        found.position = total["position"] + found.images * pilot
        found.square = (
            total["square"]
            + 2.0 * (pilot * total["position"]).sum()
            + found.images * pilot.square().sum()
        )
        if isinstance(self.edges, PairEdges):
            found.pair_counts, found.pair_sums = total["pair_counts"], total["pair_sums"]
        return found

    def null(self, sums: LogitSums) -> EdgeNull:
        """The permutation null of every edge; `sums` as `sums` gives them."""
        pilot = self.pilot.cpu().double()
        return self.edges.null(sums, pilot, self.totals["position_counts"].cpu())

    def pair_share(self, mean: Float[Tensor, "head token token"]) -> Tensor | None:
        """`pair_position_share` of these images, for cluster destinations."""
        return self.edges.position_share(mean) if isinstance(self.edges, PairEdges) else None


def draw_blocks(images: int, block: int, most: int = NULL_IMAGES) -> int:
    """How many blocks of a part permutations are sampled on: about `most` images."""
    return min(max(1, most // max(block, 1)), -(-images // max(block, 1)))


def block_null(
    trace: LogitSource,
    images: Int[np.ndarray, " image"],
    labels: Int[Tensor, "image token"],
    sums: LogitSums,
    *,
    block: int,
    destination: str,
    draws: int,
    seed: int,
    progress: Progress = silent,
) -> EdgeNull:
    """The null of the streaming route, from a stored trace: permutations within blocks.

    Parameters
    ----------
    images : Int[ndarray, "image"]
        Sorted indices into the trace; `labels` and `sums` are theirs.
    block : int
        Images of a block.
    """
    found = BlockSums(
        sums.clusters,
        sums.position_mean.float(),
        destination=destination,
        draws=draws,
        draw_blocks=draw_blocks(len(images), block),
        seed=seed,
        energy=True,
    )

    def reader(logits: Tensor) -> Read:
        return lambda heads: logits[:, heads].transpose(0, 1).contiguous()

    done = 0
    for number, chosen in enumerate(random_blocks(len(images), block, seed)):
        logits = torch.cat([part for _, part in trace.iter_logits(images[chosen])])
        found.add(labels[chosen], reader(logits), number)
        done += len(chosen)
        progress("images permuted", done, len(images))
    return found.null(sums)
