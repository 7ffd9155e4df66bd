"""The command line in the tests' own process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xaikit.cli import main


def run(*arguments: str) -> int:
    """Run a command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def run_stages(folder: Path, stages: dict[str, list[str]]) -> Path:
    """Run commands one after the other in a folder, with their default file names."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for command, options in stages.items():
            assert run(command, *options, "--quiet") == 0
    finally:
        os.chdir(before)
    return folder
