"""What a folder says of the run that was last made in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.file_names import RUN
from xaikit.artifacts.files import FORMAT_VERSION, write_json
from xaikit.artifacts.run_record import STAGE
from xaikit.passes.feed import LayerPair

if TYPE_CHECKING:
    from xaikit.run.subject import Subject


def write_run(root: Path, subject: Subject, pairs: list[LayerPair], command: str = "") -> None:
    """Name the layers of a run, so that those of an earlier one are not taken for its own.

    Parameters
    ----------
    command : str
        What makes the run again on the command line; empty where it was made from Python.
    """
    idle = ("workers", "batch_size", "memory", "strict")
    options = {k: v for k, v in asdict(subject.options).items() if k not in idle}
    fields = {
        "stage": STAGE,
        "format_version": FORMAT_VERSION,
        **subject.described(),
        "pairs": [list(pair) for pair in pairs],
        "folders": ["." if len(pairs) == 1 else f"layer_{pair[0]}" for pair in pairs],
        "options": options,
        **({"command": command} if command else {}),
    }
    write_json(root / RUN, fields)
