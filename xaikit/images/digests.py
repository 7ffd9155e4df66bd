"""Digests of the bytes that are decoded: what a picture is, whatever it is called.

BLAKE2b is as strong as SHA-2 and faster than most disks, so that hashing a folder takes as long
as reading it, and a pass that decodes the images anyway remembers what it read.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

DIGEST_BYTES = 16
_SETTLED_NS = 2 * 10**9


def digest_of(data: bytes | memoryview) -> str:
    """32 hexadecimal digits of the bytes of an image (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def digest_of_picture(image: Image.Image) -> str:
    """The same of decoded pixels, for images that are no file's bytes."""
    return digest_of(f"{image.mode} {image.size}\n".encode() + image.tobytes())


def digest_of_failure(reason: str) -> str:
    """The digest of an image whose bytes cannot be had; no file has it."""
    # The key keeps it apart from a file that holds just these words.
    data = reason.encode("utf-8", "backslashreplace")
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=b"unreadable").hexdigest()


@dataclass
class Digests:
    """Digests that a source has already taken, each with the state of the file it was read from.

    A digest is only believed as long as the file looks untouched, and had been left alone for
    two seconds when it was read: a later change within one tick of the file system's clock would
    not show.
    """

    _known: dict[int, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def keep(self, i: int, status: os.stat_result, data: bytes) -> str:
        """The digest of `data`, just read for image `i` from a file that was of this `status`."""
        digest = digest_of(data)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
            self._known[i] = (_state(status), digest)
        else:
            self._known.pop(i, None)
        return digest

    def known(self, i: int, status: os.stat_result) -> str | None:
        """The digest of image `i`, if its file still is what it was."""
        state, digest = self._known.get(i, ((), ""))
        return digest if state == _state(status) else None


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
