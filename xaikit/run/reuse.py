"""One rule of reuse: a result is kept where nothing behind it changed, and made again elsewhere.

What is behind a result: the content of its inputs, every option that can change it, the revision
of the stage that makes it, and the files it lists. A folder's manifest records them, by names
relative to the folder, so that a folder can be moved.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from xaikit.artifacts.file_names import (
    HEATMAPS,
    MANIFEST,
    NUM_CLUSTERS,
    OVERVIEW,
    REPORT,
    RESULTS,
    RUN,
)
from xaikit.artifacts.files import FORMAT_VERSION, fingerprint, read_json, write_json
from xaikit.artifacts.makers import of_others
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError, XaikitWarning

STAGE = "manifest"
NAMES = (MANIFEST, RUN, *RESULTS, NUM_CLUSTERS)
"""Files that a run writes and reads again."""


class Kind(Protocol):
    """A kind of artefact: what loads one."""

    @classmethod
    def load(cls, path: Path) -> Any:
        """Read and check an artefact."""
        ...


Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What decides a result.

    Attributes
    ----------
    stage : str
    revision : int
        Of the code that makes it.
    inputs : mapping of str to str
        Fingerprints of the content of what it is made from.
    options : mapping
        Every option that can change it.
    """

    stage: str
    revision: int
    inputs: Mapping[str, str]
    options: Mapping[str, Any]

    def key(self) -> str:
        """One hash of it all."""
        return fingerprint(
            FORMAT_VERSION, self.stage, self.revision, dict(self.inputs), dict(self.options)
        )


@dataclass
class Folder:
    """Results in a folder.

    Attributes
    ----------
    root : Path
    force : bool
        Make everything again.
    seconds : dict of str to float
        Time of each stage that ran.
    reused : list of str
        Stages whose result was already there.
    """

    root: Path
    force: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)

    def make(self, name: str, kind: type[Any], request: Request, build: Callable[[], Made]) -> Made:
        """The result called `name`, made by `build` where it is not there already."""
        found: Made | None = self.find(name, kind, request)
        if found is not None:
            return found
        start = time.perf_counter()
        made: Made = self.keep(name, build(), request)
        self.seconds[request.stage] = time.perf_counter() - start
        return made

    def find(self, name: str, kind: type[Any], request: Request) -> Any | None:
        """The result called `name`, where nothing behind it changed."""
        entry = self._manifest().get(name)
        if self.force or entry is None or entry.get("key") != request.key():
            return None
        if self._digests(entry["files"]) != entry.get("file_digests"):
            return None
        try:
            found = kind.load(self.root / name)
            if isinstance(found, Trace):
                found.require_whole()
        except UsageError as error:
            if (self.root / name).exists():
                _say(f"{self.root / name} is made again: {error}")
            return None
        if found.identity != entry.get("identity"):
            return None
        self.reused.append(request.stage)
        return found

    def keep(self, name: str, made: Any, request: Request) -> Any:
        """Save a result, unless it was written as it was made, and record what is behind it."""
        if made.path is None or Path(made.path) != self.root / name:
            made.save(self.root / name)
        files = [str(Path(file).relative_to(self.root)) for file in _listed(made)]
        entry = {
            "key": request.key(),
            "identity": made.identity,
            "stage": request.stage,
            "revision": request.revision,
            "inputs": dict(request.inputs),
            "options": dict(request.options),
            "files": files,
            "file_digests": self._digests(files),
        }
        self._write({**self._manifest(), name: entry})
        return made

    def _digests(self, files: Sequence[str]) -> list[str]:
        """Of the content of files; of one that cannot be read, nothing that a file has."""
        found = []
        for file in files:
            try:
                found.append(fingerprint((self.root / file).read_bytes()))
            except OSError:
                found.append("")
        return found

    def _manifest(self) -> dict[str, Any]:
        path = self.root / MANIFEST
        if not path.exists():
            return {}
        try:
            found = read_json(path, STAGE)
            require_schema(path, found, STAGE)
        except UsageError as error:
            _say(f"every result in {self.root} is made again: {error}")
            return {}
        return dict(found["results"])

    def _write(self, results: dict[str, Any]) -> None:
        fields = {"stage": STAGE, "format_version": FORMAT_VERSION, "results": results}
        write_json(self.root / MANIFEST, fields)


def require_none_of_others(folder: Path) -> None:
    """Refuse a folder that holds a file of a result's name which something else wrote.

    One that cannot be read may be a result that was damaged, and is made again.

    Raises
    ------
    UsageError
        Naming the file.
    """
    names = (*NAMES, REPORT, OVERVIEW)
    for path in [*(folder / name for name in names), *(folder / HEATMAPS).glob("head_*.png")]:
        if path.is_file() and of_others(path):
            raise UsageError(
                f"{path} was not written by xaikit, and a run would write over it: pass another "
                "`out_dir=`, or move it"
            )


def _say(line: str) -> None:
    warnings.warn(line, XaikitWarning, stacklevel=4)


def _listed(made: Any) -> list[str]:
    """Files that an artefact lists beside itself."""
    return list(getattr(made, "heatmaps", ()))
