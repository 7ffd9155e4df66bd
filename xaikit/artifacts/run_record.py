"""What a folder says of the run that was last made in it, as later commands read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xaikit.artifacts.files import lies_beside, read_json
from xaikit.artifacts.schema import require_schema
from xaikit.errors import UsageError

RUN = "run.json"
STAGE = "run"


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
