"""Whose a file is that lies where a run writes: what a run did not make is not its to replace."""

from __future__ import annotations

from pathlib import Path

import orjson
from PIL import Image

from xaikit.artifacts.file_names import MAKER
from xaikit.artifacts.tensorfile import HEADER_LIMIT


def of_others(path: Path) -> bool:
    """Whether a file that is called like one of a run was written by something else.

    One that cannot be read may be ours and damaged. Artefacts say their stage, pictures and pages
    their maker.
    """
    try:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                return picture.info.get("Software") != MAKER
        with path.open("rb") as file:
            if path.suffix == ".html":
                return f'name="generator" content="{MAKER}"'.encode() not in file.read(4096)
            if path.suffix == ".json":
                found = orjson.loads(file.read())
            else:
                length = min(int.from_bytes(file.read(8), "little"), HEADER_LIMIT)
                header = orjson.loads(file.read(length))
                found = header.get("__metadata__", {})
    except (OSError, ValueError, AttributeError):
        return False
    return not isinstance(found, dict) or "stage" not in found
