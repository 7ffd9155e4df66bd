"""What passes learn of the blocks they are shown, pair of layers by pair of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from xaikit.distributed import World
from xaikit.passes.feed import ATTENTION, GATES, NORMS, Attention, SeenBlock, Visitor
from xaikit.statistics.totals import Totals, as_float64, in_float64

if TYPE_CHECKING:
    from torch import Tensor


class _Mean(Visitor):
    """A mean over the images shown: a sum and their number."""

    def __init__(self, *shape: int, device: torch.device | str) -> None:
        self._totals = Totals(device)
        self._totals.new("sum", *shape)
        self._totals.new("images")

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        return self._totals.state()

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._totals.load(state)

    def reduce(self, world: World) -> None:
        """Add up all processes' images."""
        self._totals.reduce(world)


class PositionMean(_Mean):
    """The mean logit at every position, ``M_pos``, of all images shown."""

    needs = frozenset({ATTENTION})

    def __init__(self, heads: int, tokens: int, device: torch.device | str = "cpu") -> None:
        super().__init__(heads, tokens, tokens, device=device)
        self._heads = heads

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        """Add a block's logits."""
        self._totals.add("images", torch.tensor(float(len(block))))
        for head in range(self._heads):
            rows = slice(head, head + 1)
            logits = attention.logits(rows)[0]
            parts = [few.sum(0) for _, few in in_float64(logits, self._totals.device)]
            self._totals.add("sum", torch.stack(parts).sum(0, keepdim=True), rows)

    @property
    def images(self) -> int:
        """Images shown."""
        return round(float(self._totals.value("images")))

    @property
    def mean(self) -> Tensor:
        """``[head, token, token]`` float64."""
        return self._totals.value("sum") / max(self.images, 1)


class NormMean(_Mean):
    """The mean norm of the residual stream of every token."""

    needs = frozenset({NORMS})

    def __init__(self, tokens: int, device: torch.device | str = "cpu") -> None:
        super().__init__(tokens, device=device)

    def norms(self, block: SeenBlock, norms: Tensor) -> None:
        """Add a block's norms."""
        self._totals.add("sum", as_float64(norms).to(self._totals.device).sum(0))
        self._totals.add("images", torch.tensor(float(len(block))))

    @property
    def mean(self) -> Tensor:
        """``[token]`` float32; empty where no norms are recorded."""
        images = float(self._totals.value("images"))
        return (self._totals.value("sum") / images).float() if images else torch.zeros(0)


class GateSample(Visitor):
    """Gates of chosen tokens, eight to a byte.

    Parameters
    ----------
    rows : mapping of int to Int[ndarray, "token"]
        Tokens of each candidate to take.
    ffn_width : int
    """

    needs = frozenset({GATES})

    def __init__(self, rows: Mapping[int, np.ndarray], ffn_width: int) -> None:
        self._rows, self.width = dict(rows), ffn_width
        self._found: dict[int, np.ndarray] = {}

    def gates(self, block: SeenBlock, gates: Tensor) -> None:
        """Take the chosen tokens of a block."""
        for at, image in enumerate(block.images.tolist()):
            chosen = self._rows.get(image)
            if chosen is not None:
                taken = gates[at][torch.from_numpy(chosen).to(gates.device)]
                self._found[image] = np.packbits(taken.cpu().numpy().astype(bool), axis=1)

    def reduce(self, world: World) -> None:
        """Bring all processes' tokens to the first one."""
        if world.size == 1:
            return
        images = np.array(sorted(self._found), dtype=np.int64)
        parts = world.gather(
            {
                "images": torch.from_numpy(images),
                "lengths": torch.tensor([len(self._found[i]) for i in images.tolist()]),
                "gates": torch.from_numpy(self.packed()),
            }
        )
        for part in parts[1:]:
            self._found |= _by_image(part)

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        images = sorted(self._found)
        return {
            "images": torch.tensor(images, dtype=torch.int64),
            "lengths": torch.tensor([len(self._found[i]) for i in images], dtype=torch.int64),
            "gates": torch.from_numpy(self.packed()),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._found = _by_image(state)

    def packed(self) -> np.ndarray:
        """Gates ``[row, byte]``, eight to a byte, in the order of candidates and tokens."""
        empty = np.empty((0, -(-self.width // 8)), np.uint8)
        return np.concatenate([empty, *(self._found[image] for image in sorted(self._found))])

    @property
    def tokens(self) -> np.ndarray:
        """Which token of its image each row of `sample` is ``[row]`` int64."""
        empty = np.empty(0, np.int64)
        return np.concatenate([empty, *(self._rows[image] for image in sorted(self._found))])

    @property
    def sample(self) -> np.ndarray:
        """Gates ``[row, ffn]`` uint8, in the order of candidates and tokens."""
        return np.unpackbits(self.packed(), axis=1, count=self.width)


def _by_image(state: dict[str, Tensor]) -> dict[int, np.ndarray]:
    """Packed gates of each image."""
    ends = np.cumsum(state["lengths"].numpy(), dtype=np.int64)
    starts = ends - state["lengths"].numpy()
    rows = state["gates"].numpy()
    images = state["images"].tolist()
    return {at: rows[a:b] for at, a, b in zip(images, starts, ends, strict=True)}


class Labels(Protocol):
    """Clusters of a block's tokens."""

    def of(self, block: SeenBlock) -> Tensor:
        """Labels ``[image, token]`` int64."""
        ...


class GivenLabels:
    """Labels that are known already.

    Parameters
    ----------
    labels : Int[Tensor, "image token"]
        Of the used images.
    used : Int[ndarray, "image"]
        The candidate behind each row, ascending.
    """

    def __init__(self, labels: Tensor, used: np.ndarray) -> None:
        self._labels, self._used = labels, used

    def of(self, block: SeenBlock) -> Tensor:
        """Labels of the block's images."""
        return self._labels[torch.from_numpy(np.searchsorted(self._used, block.images))]


class LabelImages(Visitor):
    """Nearest centroid of every token shown, in the smallest integers that hold it."""

    needs = frozenset({GATES})

    def __init__(
        self, labeller: Callable[[Tensor], Tensor], clusters: int, candidates: int, tokens: int
    ) -> None:
        self._label = labeller
        small = torch.uint8 if clusters <= 256 else torch.int16
        self._labels = torch.zeros(candidates, tokens, dtype=small)
        self._there = torch.zeros(candidates, dtype=torch.bool)
        self._current: tuple[SeenBlock, Tensor] | None = None

    def gates(self, block: SeenBlock, gates: Tensor) -> None:
        """Label a block."""
        found = self._label(gates)
        self._current = (block, found)
        rows = torch.from_numpy(block.images)
        self._labels[rows] = found.cpu().to(self._labels.dtype)
        self._there[rows] = True

    def of(self, block: SeenBlock) -> Tensor:
        """Labels of a block that was shown, on the device of its gates while it is shown."""
        if self._current is not None and self._current[0] is block:
            return self._current[1]
        return self._labels[torch.from_numpy(block.images)].long()

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far."""
        return {"labels": self._labels, "there": self._there}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._labels.copy_(state["labels"])
        self._there.copy_(state["there"])

    def reduce(self, world: World) -> None:
        """Bring all processes' labels to the first one."""
        for part in world.gather({"labels": self._labels, "there": self._there})[1:]:
            own = part["there"]
            self._labels[own] = part["labels"][own]
            self._there |= own

    @property
    def used(self) -> np.ndarray:
        """Candidates that were shown, ascending."""
        return np.flatnonzero(self._there.numpy())

    @property
    def labels(self) -> Tensor:
        """Labels of `used` ``[image, token]`` int64."""
        return self._labels[self._there].long()
