"""Which pictures are in a tar shard, where, and what in it is none.

tarfile ends without a word at whatever it cannot read as a header, so that a shard that is cut
short between two members, damaged, or followed by another looks whole: what follows the last
member is looked at here.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from xaikit.errors import UsageError
from xaikit.images.decoding import image_suffixes
from xaikit.images.names import unicode_name

_PREFERRED = (".jpg", ".jpeg", ".png", ".webp")
_LABEL = ".cls"
_LONGEST_LABEL = 1000
_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_LONGEST_PADDING = 2**20


@dataclass(frozen=True)
class Member:
    """Where the bytes of one image are: `size` bytes from `offset` of shard number `shard`."""

    shard: int
    offset: int
    size: int


@dataclass
class ShardIndex:
    """The pictures of one shard.

    A sample is what has one name up to its first dot. Its picture is ``KEY.jpg``; where there is
    none, all of ``KEY.left.jpg``, ``KEY.right.jpg`` are pictures, each under its own name.

    Attributes
    ----------
    left_out : Counter of str
        Pictures that are not read, samples without one, and odd members, by kind.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    _pictures: dict[str, dict[str, dict[str, Member]]] = field(default_factory=dict)
    _labels: dict[str, str] = field(default_factory=dict)
    _others: dict[str, str] = field(default_factory=dict)

    def images(self) -> Iterator[tuple[str, Member, str]]:
        """The name, the place and the label of every picture, in the order of samples."""
        for key, suffix in self._others.items():
            if key not in self._pictures:
                what = unicode_name(suffix) or "no suffix"
                self.left_out[f"samples without a picture ({what})"] += 1
        for key, stems in self._pictures.items():
            for stem, kinds in stems.items():
                if key in stems and stem != key:
                    for kind in kinds:
                        self.left_out[
                            f"pictures beside another (.{stem[len(key) + 1 :]}{kind})"
                        ] += 1
                    continue
                best, *rest = sorted(kinds, key=_preference)
                for kind in rest:
                    self.left_out[f"pictures beside another ({kind})"] += 1
                yield stem, kinds[best], self._labels.get(stem, self._labels.get(key, ""))

    def add(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, shard: int) -> None:
        """Take in one member."""
        name = entry.name.removeprefix("./")
        folder, slash, base = name.rpartition("/")
        if entry.isdir() or base.startswith(".") or not base:
            return
        if not entry.isreg() or entry.issparse():
            self.left_out["members that are no plain files"] += 1
            return
        key = folder + slash + base.partition(".")[0]
        stem, suffix = os.path.splitext(name)
        suffix = suffix.lower()
        if suffix in image_suffixes():
            kinds = self._pictures.setdefault(key, {}).setdefault(stem, {})
            if suffix in kinds:
                self.left_out["members that a later one of their name replaces"] += 1
            kinds[suffix] = Member(shard, entry.offset_data, entry.size)
        elif suffix == _LABEL and entry.size <= _LONGEST_LABEL:
            file = tar.extractfile(entry)
            text = b"" if file is None else file.read()
            self._labels[stem] = text.decode("utf-8", "backslashreplace").strip()
        else:
            self._others.setdefault(key, suffix)


def index_shard(shard: Path, number: int) -> ShardIndex:
    """Read the headers of one shard.

    Raises
    ------
    UsageError
        It is no uncompressed tar file, or not a whole one.
    """
    found = ShardIndex()
    last = ""
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for entry in tar:
                last = entry.name
                # tarfile would go back, and round and round.
                if entry.size < 0 or tar.offset < entry.offset_data:
                    raise tarfile.ReadError("a member of negative size")
                found.add(tar, entry, number)
            if _end(file, tar.offset, after=last):
                found.left_out[f"padding at the end of {unicode_name(shard.name)} (cut short)"] += 1
    except (tarfile.TarError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a whole, uncompressed tar file"
        if isinstance(error, _NotWhole):
            reason += f": {error}"
        raise UsageError(f"`webdataset=`: {unicode_name(str(shard))}: {reason}") from error
    return found


class _NotWhole(tarfile.TarError):
    """A tar file that does not end as one."""


def _end(file: IO[bytes], offset: int, *, after: str) -> bool:
    """Check that nothing but an end of archive follows; return whether its padding is cut."""
    size = os.fstat(file.fileno()).st_size
    file.seek(offset)
    rest = file.read(_LONGEST_PADDING + 1)
    where = f"after {unicode_name(after)!r}" if after else "at its start"
    if rest.strip(b"\0") or len(rest) > _LONGEST_PADDING:
        raise _NotWhole(f"damaged, cut short or joined to another {where}")
    if len(rest) < 2 * _BLOCK or size % _BLOCK:
        raise _NotWhole(f"its end is missing {where}")
    # Two blocks are all that some programs write; others fill a record.
    return len(rest) > 2 * _BLOCK and size % _RECORD != 0


def _preference(suffix: str) -> tuple[int, str]:
    place = _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED)
    return place, suffix
