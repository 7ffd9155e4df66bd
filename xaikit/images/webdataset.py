"""Images in WebDataset shards: tar files whose members belong together up to their first dot.

The format is the one that the webdataset package documents. Shards are local and uncompressed,
so that one pass over their headers finds every image, and each is read by seeking.

Our own, and not that package: it streams samples in an order and a number that depend on workers
and shards, decodes by name of the extension (pickles included) and may run a shell command that is
written into a URL. Results here are per image, so each needs an index, an id and a second reading.
"""

from __future__ import annotations

import glob
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage, decode
from xaikit.images.digests import Digests, digest_of_failure
from xaikit.images.names import counted, require_distinct, unicode_name
from xaikit.images.tar_index import Member, index_shard

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """An `ImageSource` of WebDataset shards.

    Attributes
    ----------
    shards : list of Path
    ids : list of str
        ``shard.tar/key``.
    groups : list of str, optional
        The text of each image's ``.cls`` member, empty where it has none; None where all are.
    members : list of Member
    limit : int, optional
        Usable images wanted.
    left_out : str
        What in the shards is not read, in one line; empty where everything is.
    """

    shards: list[Path]
    ids: list[str]
    groups: list[str] | None
    members: list[Member] = field(repr=False)
    limit: int | None = None
    left_out: str = ""
    _digests: Digests = field(default_factory=Digests, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        """Decode image `i`, see `decode`."""
        return decode(io.BytesIO(self._read(i)[0]), self.ids[i])

    def digest(self, i: int) -> str:
        """The digest of the bytes of member `i`, or of why they cannot be read."""
        try:
            known = self._digests.known(i, os.stat(self.shards[self.members[i].shard]))
        except OSError:
            known = None
        try:
            return known or self._read(i)[1]
        except BadImage as error:
            return digest_of_failure(error.reason)

    def _read(self, i: int) -> tuple[bytes, str]:
        member = self.members[i]
        try:
            with self.shards[member.shard].open("rb") as shard:
                status = os.fstat(shard.fileno())
                shard.seek(member.offset)
                data = shard.read(member.size)
        except OSError as error:
            raise BadImage(self.ids[i], f"its shard cannot be read: {error.strerror}") from error
        if len(data) < member.size:
            raise BadImage(self.ids[i], "its shard is cut short")
        return data, self._digests.keep(i, status, data)

    def describe(self) -> dict[str, Any]:
        """The shards and the number of images."""
        return {
            "kind": "webdataset",
            "shards": [unicode_name(str(shard)) for shard in self.shards],
            "count": len(self.ids),
        }


def open_webdataset(
    spec: str | PathLike[str] | Sequence[str], *, limit: int | None = None
) -> ShardSource:
    """Index the images of one or more shards.

    Where a sample has its picture in several forms, jpg comes before jpeg, png, webp and others;
    where a shard has a member twice, the later one counts, as in tar. See `ShardIndex` for samples
    of several pictures.

    Parameters
    ----------
    spec : str or path, or several
        A shard, a folder of .tar files, a glob, or a list such as ``train-{0000..0007}.tar`` or
        ``{a,b}.tar``.
    limit : int, optional
        Usable images wanted.

    Raises
    ------
    UsageError
        No such shard, one that is no uncompressed tar file, or no images in any of them.
    """
    every = [spec] if isinstance(spec, str | PathLike) else spec
    found = [_find_shards(os.path.expanduser(os.fspath(each))) for each in every]
    shards = list(dict.fromkeys(chain.from_iterable(found)))
    ids: list[str] = []
    labels: list[str] = []
    members: list[Member] = []
    left_out: Counter[str] = Counter()
    for number, (shard, name) in enumerate(zip(shards, _shard_names(shards), strict=True)):
        index = index_shard(shard, number)
        for key, member, label in index.images():
            ids.append(unicode_name(f"{name}/{key}"))
            members.append(member)
            labels.append(label)
        left_out += index.left_out
    if not ids:
        beside = f" ({counted(left_out)})" if left_out else ""
        raise UsageError(f"`webdataset={spec}`: no image in {len(shards)} shard(s){beside}")
    require_distinct(ids, "webdataset")
    return ShardSource(
        shards=shards,
        ids=ids,
        groups=labels if any(labels) else None,
        members=members,
        limit=limit,
        left_out=_left_out(left_out),
    )


def _left_out(counts: Counter[str]) -> str:
    return f"not read from the shards: {counted(counts)}" if counts else ""


def _find_shards(spec: str) -> list[Path]:
    if os.path.isdir(spec):
        found = _glob(os.path.join(glob.escape(spec), "*.tar"))
        if not found:
            raise UsageError(f"`webdataset={spec}`: no .tar files in this folder")
        return [_absolute(shard) for shard in found]
    shards: dict[Path, None] = {}
    for pattern in [spec] if os.path.exists(spec) else _expand_braces(spec):
        found = [Path(pattern)] if os.path.exists(pattern) else _glob(pattern)
        if not found:
            raise UsageError(f"`webdataset=`: {pattern!r}: no such shard")
        shards.update((_absolute(shard), None) for shard in found)
    return list(shards)


def _absolute(shard: Path) -> Path:
    return Path(os.path.abspath(shard))


def _glob(pattern: str) -> list[Path]:
    return sorted(Path(name) for name in glob.glob(pattern, recursive=True))


def _expand_braces(pattern: str) -> Iterator[str]:
    """``a{1..3}`` and ``a{x,y}`` as the shell expands them, zeros in front kept."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        options = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        options = match[1].split(",")
    for option in options:
        yield from _expand_braces(pattern[: match.start()] + option + pattern[match.end() :])


def _shard_names(shards: list[Path]) -> list[str]:
    """File names, or paths below the common folder where two file names are the same."""
    names = [shard.name for shard in shards]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([shard.parent for shard in shards])
    return [shard.relative_to(common).as_posix() for shard in shards]
