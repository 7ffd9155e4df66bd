"""What a folder says of the run that was last made in it, as later commands read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xaikit.artifacts.file_names import FIT, RUN
from xaikit.artifacts.files import lies_beside, read_json
from xaikit.artifacts.records import Artifact
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.tensors import Fit
from xaikit.errors import UsageError

STAGE = "run"

Made = TypeVar("Made", bound=Artifact)


def read_run(root: Path) -> dict[str, Any]:
    """What `xaikit.run.record.write_run` wrote.

    Raises
    ------
    UsageError
        Where there is no run in the folder, or its record is damaged.
    """
    path = root / RUN
    if not path.exists():
        raise UsageError(f"{root} holds no run: make one with `xaikit run-all --out-dir {root}`")
    found = read_json(path, STAGE)
    require_schema(path, found, STAGE)
    if not all(name == "." or lies_beside(name) for name in found["folders"]):
        raise UsageError(f"{path} names folders elsewhere: run `xaikit run-all` again")
    return found


def run_folders(root: Path) -> list[Path]:
    """Folders of the layers of the run that was last made in a folder, lowest first.

    Folders of an earlier run may lie beside them; without a run's record all there are count.
    """
    if not (root / RUN).exists():
        layers = {path.name.removeprefix("layer_"): path for path in root.glob("layer_*")}
        return [layers[name] for name in sorted(filter(str.isdecimal, layers), key=int)]
    return [root / name for name in read_run(root)["folders"] if name != "."]


def fits_of(folders: Sequence[Path]) -> dict[Path, Fit]:
    """Fits of the layers of a run by their folders, of those that have one."""
    return {folder: Fit.load(folder / FIT) for folder in folders if (folder / FIT).exists()}


def read_together(load: Callable[[Path], Made], path: Path, fits: Sequence[Fit]) -> Made | None:
    """What lies at the root of a run of several layers, if it was made of all of them together.

    Files of an earlier run, of one layer or of others, may lie there too.
    """
    if not path.exists():
        return None
    made = load(path)
    parents = made.provenance.parents
    same = all(parents.get(f"fit_{fit.layer}") == fit.identity for fit in fits)
    return made if same else None


def read_beside(load: Callable[[Path], Made], path: Path, fit: Fit | None) -> Made | None:
    """What was made of a fit and lies in its layer's folder, if it was made of this one.

    A later run leaves the files of stages that it was told to leave out.
    """
    if not path.exists():
        return None
    made = load(path)
    same = fit is None or made.provenance.parents.get("fit", fit.identity) == fit.identity
    return made if same else None
