"""What a folder says of the run that was last made in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.files import FORMAT_VERSION, read_json, write_json
from xaikit.errors import UsageError
from xaikit.passes.feed import LayerPair

if TYPE_CHECKING:
    from xaikit.run.subject import Subject

RUN = "run.json"
STAGE = "run"


def write_run(root: Path, subject: Subject, pairs: list[LayerPair]) -> None:
    """Name the layers of a run, so that those of an earlier one are not taken for its own."""
    idle = ("workers", "batch_size", "memory", "strict")
    options = {k: v for k, v in asdict(subject.options).items() if k not in idle}
    fields = {
        "stage": STAGE,
        "format_version": FORMAT_VERSION,
        **subject.described(),
        "pairs": [list(pair) for pair in pairs],
        "folders": ["." if len(pairs) == 1 else f"layer_{pair[0]}" for pair in pairs],
        "options": options,
    }
    write_json(root / RUN, fields)


def read_run(root: Path) -> dict[str, Any]:
    """What `write_run` wrote.

    Raises
    ------
    UsageError
        Where there is no run in the folder, or its record is damaged.
    """
    if not (root / RUN).exists():
        raise UsageError(f"{root} holds no run: make one with `xaikit run-all --out-dir {root}`")
    found = read_json(root / RUN, STAGE)
    folders = found.get("folders")
    if not isinstance(folders, list) or not all(isinstance(name, str) for name in folders):
        raise UsageError(f"{root / RUN} is damaged: run `xaikit run-all --out-dir {root}` again")
    return found
