"""Images as files under one folder."""

from __future__ import annotations

import io
import os
from collections import Counter, deque
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage, decode, image_suffixes, read_image
from xaikit.images.digests import Digests, digest_of_failure
from xaikit.images.names import counted, require_distinct, unicode_name

_NO_SUFFIX = "without a suffix"
_PLUG_INS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".avif": "pillow-avif-plugin"}


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """An `ImageSource` of files.

    Attributes
    ----------
    root : Path
    names : list of str
        File names relative to `root`, with ``/``.
    ids : list of str
        `names`, with bytes that are no UTF-8 escaped.
    groups : list of str, optional
        The folder of every image relative to `root`; None where all lie directly in it.
    limit : int, optional
        Usable images wanted.
    facts : dict
        What `describe` says beyond the root and the count.
    argument : str
        What the command line calls the source.
    left_out : str
        What lies beside the images and is not read, in one line; empty where nothing does.
    """

    root: Path
    names: list[str]
    ids: list[str] = field(init=False)
    groups: list[str] | None
    limit: int | None = None
    facts: dict[str, Any]
    argument: str = "images"
    left_out: str = ""
    _digests: Digests = field(default_factory=Digests, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", [unicode_name(name) for name in self.names])
        require_distinct(self.ids, self.argument)

    def __len__(self) -> int:
        return len(self.names)

    def load(self, i: int) -> Image.Image:
        """Decode file `i`, see `read_image` and `decode`."""
        return decode(io.BytesIO(self._read(i)[0]), self.ids[i])

    def digest(self, i: int) -> str:
        """The digest of the bytes of file `i`, or of why it cannot be read."""
        try:
            known = self._digests.known(i, os.stat(self.root / self.names[i]))
        except (OSError, ValueError):
            known = None
        try:
            return known or self._read(i)[1]
        except BadImage as error:
            return digest_of_failure(error.reason)

    def _read(self, i: int) -> tuple[bytes, str]:
        data, status = read_image(self.root / self.names[i], self.ids[i])
        return data, self._digests.keep(i, status, data)

    def describe(self) -> dict[str, Any]:
        """The kind and place of the source, and what was left aside."""
        return {"root": unicode_name(str(self.root)), "count": len(self.names), **self.facts}


def open_folder(folder: str | PathLike[str], *, limit: int | None = None) -> FileSource:
    """All files with an image's suffix under a folder, sorted by relative path.

    Hidden files and folders are passed over. Links to folders are followed, each folder once.

    Raises
    ------
    UsageError
        There is no such folder, or no image in it.
    """
    root = existing_folder(folder, "images")
    names: list[str] = []
    others: Counter[str] = Counter()
    files, unreadable = _walk(root)
    for name in files:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in image_suffixes():
            names.append(name)
        else:
            others[unicode_name(suffix) or _NO_SUFFIX] += 1
    if not names:
        raise UsageError(f"`images={folder}`: no images in this folder{_why(others, unreadable)}")
    names.sort()
    groups = [unicode_name(str(PurePosixPath(name).parent)) for name in names]
    return FileSource(
        root=root,
        names=names,
        groups=None if set(groups) == {"."} else groups,
        limit=limit,
        facts={
            "kind": "folder",
            "ignored_files": others.total(),
            "unreadable_folders": unreadable,
        },
        left_out=_left_out(others, unreadable, len(names)),
    )


def existing_folder(folder: str | PathLike[str], argument: str) -> Path:
    """The absolute path of a folder that was given, or a UsageError naming the argument."""
    path = Path(folder).expanduser()
    # Path("") is the current folder, which nobody means by an empty shell variable.
    if not str(folder) or not path.exists():
        raise UsageError(f"`{argument}={str(folder)!r}`: no such folder")
    if not path.is_dir():
        raise UsageError(f"`{argument}={folder}`: expected a folder, this is a file")
    return path.absolute()


def _walk(root: Path) -> tuple[list[str], int]:
    """Relative names of all files that are not hidden, and the number of unreadable folders.

    Real folders come before linked ones, so that a file's name does not depend on which links
    to its folder exist, and a link that leads back up ends there.
    """
    files: list[str] = []
    unreadable = 0
    seen: set[tuple[int, int]] = set()
    waiting = deque([""])
    while waiting:
        prefix = waiting.popleft()
        try:
            status = os.stat(root / prefix)
            if (status.st_dev, status.st_ino) in seen:
                continue
            entries = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
        except OSError:
            unreadable += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.appendleft(f"{prefix}{entry.name}/")
            elif entry.is_symlink() and os.path.isdir(entry.path):
                waiting.append(f"{prefix}{entry.name}/")
            else:
                files.append(prefix + entry.name)
    return files, unreadable


def _left_out(others: Counter[str], unreadable: int, images: int) -> str:
    parts = []
    if others:
        files = "file is" if others.total() == 1 else "files are"
        parts.append(f"{others.total():,} other {files} not read: {counted(others)}")
    if unreadable:
        parts.append(f"{unreadable:,} folders cannot be read")
    plug_ins = {_PLUG_INS[kind] for kind in others if kind in _PLUG_INS}
    if plug_ins:
        parts.append(f"the package {' or '.join(sorted(plug_ins))} would read some of them")
    return f"beside {images:,} images, {'; '.join(parts)}" if parts else ""


def _why(others: Counter[str], unreadable: int) -> str:
    parts = [f"{others.total():,} other files: {counted(others)}"] if others else []
    if unreadable:
        parts.append(f"{unreadable:,} unreadable folders")
    return f" ({'; '.join(parts)})" if parts else " or below it"
