"""Which image's logits take the place of which: the file behind ``--ablation pair``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from xaikit.artifacts.replacing import replacing
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from xaikit.images import ImageSource

HEADER = ("image", "partner")


def read_pairs(path: Path, source: ImageSource) -> dict[str, str]:
    """Read pairs of images: each one's partner, by id.

    Parameters
    ----------
    path : Path
        CSV of two columns (a first line ``image,partner`` is a heading), or JSON: a list of pairs
        or an object of image to partner. A name is an id of the source, or a path that ends in
        one; a pair is read from left to right.
    source : ImageSource
        Holds both images of every pair.

    Raises
    ------
    UsageError
        Naming the file and the line: not two names, a name that is none of the images', an image
        with two partners, or its own.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"`pairs={path}`: {reason}") from None
    names = _Names(source.ids)
    found: dict[str, str] = {}
    for place, row in read_rows(f"`pairs={path}`", path, text, HEADER):
        where = f"`pairs={path}`, {place}"
        if len(row) != 2 or not all(isinstance(name, str) and name.strip() for name in row):
            raise UsageError(f"{where}: expected two image ids or paths")
        image, partner = (names.find(name.strip(), where) for name in row)
        if image == partner:
            raise UsageError(f"{where}: {image} is its own partner")
        if found.setdefault(image, partner) != partner:
            raise UsageError(f"{where}: {image} has a partner already, {found[image]}")
    if not found:
        raise UsageError(f"`pairs={path}`: no pair in it; expected two ids or paths a line")
    return found


def read_rows(
    where: str, path: Path, text: str, header: tuple[str, str]
) -> Iterator[tuple[str, list[Any]]]:
    """Rows of a table of pairs and where each is: CSV, or JSON as its name says.

    Raises
    ------
    UsageError
        That begins with `where`, for what is no list of pairs.
    """
    if path.suffix.lower() == ".json":
        try:
            loaded = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{where}: not valid JSON ({error})") from None
        rows = list(loaded.items()) if isinstance(loaded, dict) else loaded
        if not isinstance(rows, list) or not all(isinstance(row, list | tuple) for row in rows):
            raise UsageError(
                f"{where}: expected a list of pairs, or an object of {header[0]} to {header[1]}"
            )
        yield from ((f"pair {place}", list(row)) for place, row in enumerate(rows, 1))
        return
    for place, row in enumerate(csv.reader(text.splitlines()), 1):
        heading = place == 1 and tuple(cell.strip().lower() for cell in row) == header
        if row and not heading:
            yield f"line {place}", row


class _Names:
    """Ids by themselves, and by the paths that end in them."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = set(ids)

    def find(self, name: str, where: str) -> str:
        if name in self.ids:
            return name
        parts = Path(name).as_posix().split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            if tail in self.ids:
                return tail
        raise UsageError(f"{where}: {name} is none of the {len(self.ids):,} images")


def write_pairs(path: Path, pairs: dict[str, str]) -> None:
    """Write pairs as CSV with a heading."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(pairs.items())
