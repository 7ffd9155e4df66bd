"""The images that a trace may be of, as its file names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from xaikit.artifacts.trace_info import Named

_SPARE_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The images that a trace may be of.

    Attributes
    ----------
    names : Named
        Whose first images they are.
    content : callable
        Fingerprint of the content of some of them.
    own : range
        Those that this process reads.
    total : int, optional
        Those of all processes; by default this one is alone.
    """

    names: Named
    content: Callable[[Sequence[int]], str]
    own: range
    total: int | None = None

    def part(self, process: int, processes: int) -> range:
        """Those that one of several processes reads."""
        count = len(self.own) if self.total is None else self.total
        return range(count * process // processes, count * (process + 1) // processes)

    def header_bytes(self, images: int) -> int:
        """Room that the names of so many images take in a header, at most."""
        names = [self.names.ids[i] for i in self.own]
        groups = self.names.groups
        sizes = sorted((len(orjson.dumps(name)) + 1 for name in names), reverse=True)
        total = sum(sizes[:images])
        if groups:
            lengths = sorted((len(orjson.dumps(groups[i])) + 1 for i in self.own), reverse=True)
            total += sum(lengths[:images])
        return total + _SPARE_BYTES
