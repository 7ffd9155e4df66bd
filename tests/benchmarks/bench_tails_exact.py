"""Tails of edges against the permutations themselves, edge by edge.

Run as ``python tests/benchmarks/bench_tails_exact.py [--images 64] [--kind key]
[--destination token] [--draws 60000] [--seed 0]``; prints a Markdown table. Of one null data set
(see ``tests/null_data.py``, one head) every edge's null is sampled within the blocks that a fit
uses. For each edge and level, the share of permutations that get a p-value of the level or less
is counted, over the level: 1 is right, and a test of few arrangements cannot reach it: beside it
stands what the test that knows all permutations has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from null_data import CLUSTERS, KINDS, LEVELS, null_data

from xaikit.statistics.block_moments import BlockMoments, log_arrangements
from xaikit.statistics.block_null import Block
from xaikit.statistics.edge_sums import NULL_BLOCK
from xaikit.statistics.sampling import random_blocks
from xaikit.statistics.tails import NullShape, tail_pvalues

BINS = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 24), (25, 10**9))
CHUNK = 20_000


class Blocks:
    """Values ``f(b', b)`` of all edges of one head, block by block."""

    def __init__(self, kind: str, images: int, seed: int, pairs: bool) -> None:
        logits, labels = (torch.from_numpy(a) for a in null_data(seed, images, kind, heads=1))
        self.parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.totals: dict[str, torch.Tensor] = {}
        self.arrangements = torch.zeros(1)
        for number, chosen in enumerate(random_blocks(images, NULL_BLOCK, 0)):
            block = Block(labels[chosen], CLUSTERS, number)
            residual = logits[chosen][:, 0]
            residual = residual - residual.mean(0)
            values = torch.cat([part.clone() for _, part in block.crossed(residual, pairs)], 2)
            moments = BlockMoments(len(chosen), CLUSTERS, values.shape[3])
            moments.add(values)
            for name, part in moments.sums("cpu").items():
                self.totals[name] = self.totals.get(name, 0) + part
            present = (block.maps.sum(1) > 0).float()
            held = present[:, :, None] * (present[:, None, :] if pairs else 1.0)
            self.arrangements = self.arrangements + log_arrangements(held)
            self.parts.append((present > 0, values))
        self.arrangements = self.arrangements.double().expand_as(self.totals["variance"])

    def drawn(self, cluster: int, draws: int, generator: torch.Generator) -> torch.Tensor:
        """Permuted sums of one cluster's edges ``[draw, width]``.

        Label maps without the cluster are alike, and the rows of `f` sum to 0.
        """
        found = torch.zeros(draws, self.totals["variance"].shape[1])
        for present, values in self.parts:
            places = torch.rand(draws, len(values), generator=generator).argsort(1)
            without = (~present[:, cluster]).nonzero().flatten()
            base = values[without[0], cluster] if len(without) else 0.0
            for label_map in present[:, cluster].nonzero().flatten().tolist():
                found += (values[label_map, cluster] - base)[places[:, label_map]]
        return found

    def thresholds(self, cluster: int, level: float) -> torch.Tensor:
        """The score at which each edge of a cluster has p = `level`."""
        shape = {name: total[cluster] for name, total in self.totals.items()}
        low = torch.full_like(shape["variance"], 1e-9)
        high = low + 60.0
        for _ in range(40):
            middle = (low + high) / 2
            null = NullShape(scores=middle, log_arrangements=self.arrangements[cluster], **shape)
            above = tail_pvalues(middle, null)[0] > level
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return high


def measure(blocks: Blocks, draws: int, every: int) -> list[tuple[int, torch.Tensor]]:
    """Of each testable edge: images with its cluster, and sizes ``[2, level]``, ours and exact."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for cluster in range(0, CLUSTERS, every):
        deviation = blocks.totals["variance"][cluster].sqrt()
        scores = [blocks.thresholds(cluster, level) for level in LEVELS]
        counts = torch.zeros(len(LEVELS), len(deviation))
        for _ in range(0, draws, CHUNK):
            sums = blocks.drawn(cluster, CHUNK, generator).abs()
            counts += torch.stack([(sums >= (each * deviation).float()).sum(0) for each in scores])
        ways = blocks.arrangements[cluster].exp()
        reach = [torch.where(ways < 1e7, (ways * each).floor() / ways, each) for each in LEVELS]
        sizes = torch.stack([counts / (-(-draws // CHUNK) * CHUNK), torch.stack(reach)])
        images = sum(int(present[:, cluster].sum()) for present, _ in blocks.parts)
        sizes = sizes / torch.tensor(LEVELS)[:, None]
        found += [(images, sizes[:, :, edge]) for edge in (deviation > 1e-6).nonzero().flatten()]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--kind", choices=KINDS, default="key")
    parser.add_argument("--destination", choices=("token", "cluster"), default="token")
    parser.add_argument("--draws", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = options.destination == "cluster"
    blocks = Blocks(options.kind, options.images, options.seed, pairs)
    rows = measure(blocks, options.draws, 4 if pairs else 1)
    heads = " | ".join(f"at {level:g} (exact)" for level in LEVELS)
    print(f"| t3 in | images | edges to | images with the cluster | edges | {heads} |")
    print("| --- | ---: | --- | ---: | ---: |" + " ---: |" * len(LEVELS))
    for low, high in (*BINS, (1, 10**9)):
        sizes = [each for images, each in rows if low <= images <= high]
        if sizes:
            ours, exact = torch.stack(sizes).mean(0)
            cells = " | ".join(f"{a:.2f} ({b:.2f})" for a, b in zip(ours, exact, strict=True))
            count = "all" if high > 10**6 and low == 1 else f"{low} to {high}"
            name = f"{options.kind} | {options.images} | {options.destination}"
            print(f"| {name} | {count.replace(' to 1000000000', ' on')} | {len(sizes)} | {cells} |")


if __name__ == "__main__":
    main()
