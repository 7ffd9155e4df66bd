"""One fingerprint for what a list of pictures is, whatever the files are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import orjson

from xaikit.images.decoding import BadImage
from xaikit.images.digests import DIGEST_BYTES, digest_of_failure, digest_of_picture
from xaikit.machine import usable_processors
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from xaikit.images.sources import ImageSource

_CHUNK = 256


def content_fingerprint(
    source: ImageSource,
    indices: Sequence[int] | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> str:
    """One hash of ids, groups and content of some images of a source, in the order given.

    Parameters
    ----------
    source : ImageSource
        One without ``digest`` has its pictures decoded and their pixels hashed.
    indices : sequence of int, optional
        Positions in the source; all by default.
    workers : int, optional
        Threads; by default one for each processor this process may use.
    progress : Progress
        Called with ``"images compared"``.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    wanted = range(len(source)) if indices is None else [int(index) for index in indices]
    contents = Contents(source, workers=workers)
    return contents.fingerprint(wanted, progress)


class Contents:
    """Digests of a source's images, each made once.

    Parameters
    ----------
    source : ImageSource
    workers : int, optional
        Threads; by default one for each processor this process may use.
    """

    def __init__(self, source: ImageSource, *, workers: int | None = None) -> None:
        self._source = source
        self._workers = workers or usable_processors()
        self._digests: dict[int, str] = {}

    def fingerprint(self, indices: Sequence[int], progress: Progress = silent) -> str:
        """`content_fingerprint` of some images."""
        source, groups = self._source, self._source.groups
        self._read([i for i in indices if i not in self._digests], progress)
        total = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for i in indices:
            group = None if groups is None else groups[i]
            record: list[Any] = [source.ids[i], group, self._digests[i]]
            total.update(orjson.dumps(record) + b"\n")
        return total.hexdigest()

    def _read(self, wanted: Sequence[int], progress: Progress) -> None:
        # A class method is found here as well as a field: either is the source's own word.
        digest = getattr(self._source, "digest", None) or _of_pixels(self._source)
        with ThreadPoolExecutor(self._workers, "xaikit-digests") as pool:
            for start in range(0, len(wanted), _CHUNK):
                chunk = wanted[start : start + _CHUNK]
                self._digests.update(zip(chunk, pool.map(digest, chunk), strict=True))
                progress("images compared", start + len(chunk), len(wanted))


def _of_pixels(source: ImageSource) -> Callable[[int], str]:
    def digest(i: int) -> str:
        try:
            return digest_of_picture(source.load(i))
        except (BadImage, OSError) as error:
            return digest_of_failure(str(error))

    return digest
