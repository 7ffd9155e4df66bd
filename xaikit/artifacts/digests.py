"""Digests: how a file says what it holds, and how that is found to be so when it is read.

Every file starts with a digest of itself in which its own digits are zeros: of the whole file where
it is JSON, of the header where it is safetensors. That header carries a digest of every block of
every tensor, so that a file of any size is checked as it is read, and only where it is. The hash
is XXH3, which runs at the speed of memory: it finds damage and edits, it is no signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import xxhash

from xaikit.errors import UsageError

Buffer = bytes | bytearray | memoryview

DIGEST, BLOCKS = "digest", "tensor_digests"
"""Fields of a file that speak of itself."""
BLOCK_BYTES = 4 << 20
"""Bytes of a tensor behind one digest."""
BLANK: Final = "0" * 32
_DIGITS = re.compile(r"[0-9a-f]{32}")


class DamagedError(UsageError):
    """A file does not hold what was written into it."""


def sealed(data: bytes) -> tuple[bytes, str]:
    """Put the digest of some bytes in the place of their first `BLANK`; return both."""
    digest = xxhash.xxh3_128_hexdigest(data)
    return data.replace(BLANK.encode(), digest.encode(), 1), digest


def require_seal(data: bytes, fields: Mapping[str, Any], path: object, again: str) -> None:
    """Refuse bytes that are not those that `sealed` made.

    Parameters
    ----------
    data : bytes
        Of the file, or of its header.
    fields : mapping
        What they say.
    path : object
        The file, for the message.
    again : str
        What to do, for the message.

    Raises
    ------
    DamagedError
        Where they changed since.
    """
    recorded = fields.get(DIGEST)
    if not isinstance(recorded, str) or not _DIGITS.fullmatch(recorded):
        raise DamagedError(f"{path} carries no digest of its content: {again}")
    found = xxhash.xxh3_128_hexdigest(data.replace(recorded.encode(), BLANK.encode(), 1))
    if found != recorded:
        raise DamagedError(
            f"{path} was changed or damaged after it was written (digest {found[:8]}…, expected "
            f"{recorded[:8]}…): {again}"
        )


def block_digest(data: Buffer) -> str:
    """Digest of one block."""
    return xxhash.xxh3_64_hexdigest(data)


class BlockDigests:
    """Digests of the blocks of a tensor that is written piece by piece."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._open = xxhash.xxh3_64()
        self._count = 0

    def update(self, data: Buffer) -> None:
        """Take in the next bytes."""
        view = memoryview(data)
        while len(view):
            part = view[: BLOCK_BYTES - self._count]
            self._open.update(part)
            self._count += len(part)
            view = view[len(part) :]
            if self._count == BLOCK_BYTES:
                self._close()

    def found(self) -> list[str]:
        """Those of all blocks so far."""
        if self._count:
            self._close()
        return self._done

    def _close(self) -> None:
        self._done.append(self._open.hexdigest())
        self._open.reset()
        self._count = 0


def blocks_of(data: Buffer) -> list[str]:
    """Digests of the blocks of a whole tensor."""
    found = BlockDigests()
    found.update(data)
    return found.found()


def require_blocks(
    digests: Any, sizes: Mapping[str, int], path: object, again: str
) -> dict[str, list[str]]:
    """Refuse a header whose digests are not of its tensors' bytes, one for each block.

    Parameters
    ----------
    digests : object
        The field of the header.
    sizes : mapping of str to int
        Bytes of each tensor.
    """
    known = isinstance(digests, dict) and set(digests) == set(sizes)
    for name, size in sizes.items() if known else ():
        found = digests[name]
        known &= isinstance(found, list) and len(found) == -(-size // BLOCK_BYTES)
        known = known and all(isinstance(each, str) for each in found)
    if not known:
        raise DamagedError(f"{path} carries no digests of its tensors: {again}")
    return dict(digests)
