"""What an interrupted pass leaves for the next run."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.files import FORMAT_VERSION, fingerprint, write_tensors
from xaikit.artifacts.replacing import remove_abandoned
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.stored import read_tensors
from xaikit.distributed import World
from xaikit.errors import UsageError, XaikitWarning
from xaikit.images import Skipped, SkippedImages

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.passes.feed import Visitors
    from xaikit.passes.plan import PlannedBlock

STAGE = "pass"
SECONDS = 300.0
"""Least time between two checkpoints of a pass."""
_SHARE = 20.0
"""A checkpoint that takes long is made so much less often: it costs at most 1/20 of the time."""
# Shards of weights have names that end alike.
_FILE = re.compile(r"(learn|sums)-\d+-\d+-of-\d+\.safetensors")


@dataclass
class Checkpoint:
    """A folder of checkpoints, of which only those that this run made are ever removed.

    Attributes
    ----------
    folder : Path
    key : str
        Of everything that decides the sums; a checkpoint with another is not used.
    world : World
    """

    folder: Path
    key: str
    world: World
    _made: set[Path] = field(default_factory=set)

    def path(self, name: str) -> Path:
        """File of a pass of this process."""
        return self.folder / f"{name}-{self.world.rank}-of-{self.world.size}.safetensors"

    def of(
        self, name: str, passes: Sequence[Sequence[PlannedBlock]], visitors: Visitors
    ) -> KeptPass:
        """The checkpoint of one pass."""
        # Forward passes are counted, so their size matters too.
        sizes = [[block.images.tolist() for block in each] for each in passes]
        return KeptPass(self, name, fingerprint(self.key, name, sizes), visitors)

    def save(self, name: str, key: str, tensors: dict[str, Tensor], fields: dict[str, Any]) -> None:
        """Write tensors for a later run."""
        path = self.path(name)
        shared = {"stage": STAGE, "format_version": FORMAT_VERSION, "key": key}
        write_tensors(path, tensors, {**shared, **fields})
        self._made.add(path)

    def read(self, name: str, key: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What an interrupted run kept under the same key."""
        path = self.path(name)
        if not path.exists():
            return None
        self._made.add(path)
        try:
            header, tensors = read_tensors(path, STAGE)
            require_schema(path, header.fields, STAGE)
        except UsageError as error:
            warnings.warn(f"a pass starts again: {error}", XaikitWarning, stacklevel=2)
            return None
        return (header.fields, tensors) if header.fields["key"] == key else None

    def forget(self) -> None:
        """Remove the checkpoints, once their results are saved and every process is done."""
        self.world.barrier()
        for path in self._made:
            path.unlink(missing_ok=True)
        self.world.barrier()
        if self.world.leads:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def remove_checkpoints(folder: Path) -> None:
    """Remove what interrupted runs left in a folder of checkpoints, now that a run is complete.

    That includes those of other options, layers or numbers of processes.
    """
    remove_abandoned(folder)
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if _FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()


class KeptPass:
    """The checkpoint of one pass."""

    def __init__(self, owner: Checkpoint, name: str, key: str, visitors: Visitors) -> None:
        self._owner, self._name, self._key, self._visitors = owner, name, key, visitors
        self._last, self._cost = time.monotonic(), 0.0

    def _places(self) -> dict[str, Any]:
        return {
            f"{pair[0]}-{pair[1]}/{at}": visitor
            for pair, each in self._visitors.items()
            for at, visitor in enumerate(each)
        }

    def resume(self, skipped: SkippedImages) -> int:
        """Forward passes that an interrupted run had done; the visitors go on from them."""
        found = self._owner.read(self._name, self._key)
        if found is None:
            return 0
        fields, tensors = found
        for place, visitor in self._places().items():
            prefix = f"{place}/"
            visitor.load(
                {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            )
        known = {record.id for record in skipped}
        records = [Skipped(*item) for item in fields["skipped"]]
        skipped.records.extend(r for r in records if r.id not in known)
        return int(fields["done"])

    def passed(self, done: int, skipped: SkippedImages) -> None:
        """Keep everything where the last time is long enough ago."""
        start = time.monotonic()
        if start - self._last < max(SECONDS, _SHARE * self._cost):
            return
        tensors = {
            f"{place}/{name}": tensor.detach().cpu()
            for place, visitor in self._places().items()
            for name, tensor in visitor.state().items()
        }
        fields = {"done": done, "skipped": [[r.id, r.reason, r.index] for r in skipped]}
        self._owner.save(self._name, self._key, tensors, fields)
        self._last = time.monotonic()
        self._cost = self._last - start
