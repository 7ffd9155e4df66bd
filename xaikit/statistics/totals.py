"""Float64 sums that come out the same whatever the order of their parts.

Several processes, and passes that are cut at other places, add the same parts in another order,
and a plain float64 sum then differs in its last bits. A total is kept as an unevaluated pair
``high + low`` (Knuth's TwoSum): its error is of the order of ``2**-106`` of the largest partial
sum, so what is rounded to float64 at the end is the same for every order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float
    from torch import Tensor

    from xaikit.distributed import World

_CACHED = 5 << 16
"""Numbers in float64 that are worked on at a time: 2.5 MiB."""


def float64_home(device: torch.device | str) -> torch.device:
    """Where float64 totals of this device live: Apple's devices have no float64."""
    found = torch.device(device)
    return torch.device("cpu") if found.type == "mps" else found


def as_float64(tensor: Tensor) -> Tensor:
    """A tensor in float64, on its own device or where its `float64_home` is."""
    # In two steps: one alone would convert on the device.
    return tensor.to(float64_home(tensor.device)).to(torch.float64)


def in_float64(
    images: Float[Tensor, "image *rest"], device: torch.device
) -> Iterator[tuple[slice, Float[Tensor, "few *rest"]]]:
    """A few images at a time in float64, in memory that is used again for the next ones.

    On a CPU, copies that stay in its cache are far quicker to sum than one of all images, and
    than float32 values that are summed in float64. Accelerators are shown all at once.
    """
    few = len(images)
    if device.type == "cpu":
        few = max(1, _CACHED // max(images[0].numel(), 1))
    shape = (min(few, len(images)), *images.shape[1:])
    memory = torch.empty(shape, dtype=torch.float64, device=device)
    for start in range(0, len(images), few):
        part = images[start : start + few]
        # In two steps, as in `as_float64`.
        yield slice(start, start + len(part)), memory[: len(part)].copy_(part.to(device))


class Totals:
    """Named sums.

    Parameters
    ----------
    device : torch.device or str
        Where the parts are; see `float64_home`.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = float64_home(device)
        self._high: dict[str, Tensor] = {}
        self._low: dict[str, Tensor] = {}

    def new(self, name: str, *shape: int, rounded: bool = False) -> None:
        """Start a total of this shape at zero.

        Parameters
        ----------
        rounded : bool
            Keep one float64 number and not a pair: for totals whose reader rounds away the last
            bits, which the order of the parts decides.
        """
        for table in (self._high,) if rounded else (self._high, self._low):
            table[name] = torch.zeros(shape, dtype=torch.float64, device=self.device)

    def __contains__(self, name: str) -> bool:
        return name in self._high

    def add(self, name: str, part: Tensor, rows: slice | None = None) -> None:
        """Add to a total, or to some of its rows (first axis)."""
        high, low = self._high[name], self._low.get(name)
        part = as_float64(part).to(self.device)
        if rows is not None:
            high, low = high[rows], None if low is None else low[rows]
        if low is None:
            high += part
        else:
            two_sum_(high, low, part)

    def value(self, name: str) -> Tensor:
        """A total, on the CPU."""
        high, low = self._high[name], self._low.get(name)
        return (high.clone() if low is None else high + low).cpu()

    def state(self) -> dict[str, Tensor]:
        """Everything, to go on from to the last bit."""
        parts = (("high", self._high), ("low", self._low))
        return {f"{name}/{kind}": t for kind, table in parts for name, t in table.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for kind, table in (("high", self._high), ("low", self._low)):
            for name, tensor in table.items():
                tensor.copy_(state[f"{name}/{kind}"])

    def reduce(self, world: World) -> None:
        """Add up the totals of all processes, on the first one."""
        if world.size == 1:
            return
        for name in sorted(self._high):
            high, low = self._high[name], self._low.get(name)
            own = {"high": high} if low is None else {"high": high, "low": low}
            for part in world.gather(own)[1:]:
                other = part["high"].to(self.device)
                if low is None:
                    high += other
                else:
                    two_sum_(high, low, other)
                    low += part["low"].to(self.device)


def two_sum_(high: Tensor, low: Tensor, part: Tensor) -> None:
    """Add `part` to the pair ``high + low`` in place, losing nothing.

    Knuth (1997), The Art of Computer Programming, volume 2, section 4.2.2, theorem B.
    """
    total = high + part
    seen = total - high
    low += (high - (total - seen)) + (part - seen)
    high.copy_(total)
