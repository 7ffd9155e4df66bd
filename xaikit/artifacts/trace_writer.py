"""Writing a trace as it is captured: one file, or shards that an interrupted run goes on from."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.replacing import remove_abandoned, replacing
from xaikit.artifacts.storage import require_room
from xaikit.artifacts.tensorfile import HEADER_LIMIT, ColumnWriter, digest_bytes
from xaikit.artifacts.trace_encoding import encoded
from xaikit.artifacts.trace_info import TraceInfo
from xaikit.artifacts.trace_shards import (
    INDEX,
    QUERIES_KEYS,
    entry_of,
    processes_of,
    whole_header,
    write_index,
)
from xaikit.errors import UsageError, XaikitError

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.candidates import Candidates
    from xaikit.artifacts.storage import Storage


class TraceWriter:
    """Collects batches into one file or into shards; use `writing`.

    Attributes
    ----------
    used : list of int
        Candidates written so far, those of complete shards of an interrupted run included.
    skipped : list of (int, str)
        Candidates that could not be used, and why.
    cursor : int
        The next candidate.
    """

    def __init__(
        self,
        path: Path,
        info: TraceInfo,
        storage: Storage,
        candidates: Candidates,
        *,
        prefix: str = "",
    ):
        self.path, self.storage, self.candidates = path, storage, candidates
        self.used: list[int] = []
        self.skipped: list[tuple[int, str]] = []
        self.cursor = candidates.own.start
        self._prefix, self._info = prefix, info
        self._capacity = len(candidates.own)
        self._shards: list[dict[str, object]] = []
        self._writer: ColumnWriter | None = None
        self._stack = contextlib.ExitStack()
        self._shard_start, self._shard_cursor = 0, self.cursor
        self._head_width: int | None = None

    def add(
        self,
        indices: list[int],
        tensors: Mapping[str, Tensor],
        skipped: Sequence[tuple[int, str]] = (),
    ) -> None:
        """Write a batch under the contract's names.

        Parameters
        ----------
        indices : list of int
            Its candidates.
        skipped : sequence of (int, str)
            Candidates before its last one that could not be used and were not named yet.
        """
        if len(self.used) + len(indices) > self._capacity:
            raise XaikitError(f"more than {self._capacity} images for one trace")
        self.skipped += skipped
        named = [self.candidates.names.ids[i] for i in indices]
        stored = encoded(tensors, self.storage, self._info, named)
        if self.storage.store_qk:
            self._head_width = stored[QUERIES_KEYS[0]].shape[-1]
        done = 0
        while done < len(indices):
            writer = self._current()
            room = writer.capacity - writer.count
            part = slice(done, min(done + room, len(indices)))
            writer.append({name: tensor[part] for name, tensor in stored.items()})
            self.used += indices[part]
            done = part.stop
            if done == len(indices):
                self.cursor = indices[-1] + 1
            if self.storage.shard_images and writer.count == writer.capacity:
                self._end_shard(partial_batch=done < len(indices))

    def finish(self) -> TraceInfo:
        """Write what is left, the header or the index, and return the finished trace's info."""
        info = self.finished_info()
        if not self.storage.shard_images:
            assert self._writer is not None
            self._writer.finish({**info.fields(), "identity": info.identity})
            self._stack.close()
            return info
        write_index(self.path, info, self.finish_shards())
        return info

    def finish_shards(self) -> list[dict[str, object]]:
        """Write what is left into a last shard; return all of them, for an index."""
        if self._writer is not None:
            self._end_shard(partial_batch=False)
        return self._shards

    def abandon(self) -> None:
        """Drop the unfinished file or shard."""
        self._stack.__exit__(*sys.exc_info())

    def resume(self) -> None:
        """Take over the complete shards that an interrupted run with the same options left."""
        key = self._key()
        for number in range(1 << 30):
            file = self.path / self._shard_name(number)
            if not file.exists():
                break
            header = whole_header(file)
            if header is None:
                break
            fields = header.fields
            if fields.get("resume_key") != key:
                raise UsageError(
                    f"{self.path} holds shards of another trace; pass `force=True` to write over "
                    "them"
                )
            if fields["resume_cursor"] is None:
                break
            read = self.candidates.content(range(self.cursor, fields["resume_cursor"]))
            if fields.get("resume_content") != read:
                break  # the images were changed meanwhile
            self.cursor = self._shard_cursor = fields["resume_cursor"]
            lost = zip(fields["skipped_at"], fields["skipped"], strict=True)
            # What lies beyond the cursor is read, and found unusable, again.
            self.skipped = [(at, why) for at, (_, why) in lost if at < self.cursor]
            self._shards.append(entry_of(file, fields["images"], header.digest))
        gone = {at for at, _ in self.skipped}
        self.used = [i for i in range(self.candidates.own.start, self.cursor) if i not in gone]
        self._shard_start = len(self.used)
        (self.path / INDEX).unlink(missing_ok=True)

    @property
    def bytes_needed(self) -> int:
        """Bytes of the candidates that are not written yet, about."""
        left = self._capacity - (self.cursor - self.candidates.own.start)
        return left * self.storage.image_bytes(self._info)

    def remove_others(self, force: bool) -> None:
        """Remove the shards that this trace got from another number of processes.

        Raises
        ------
        UsageError
            They are of another trace, and `force` is not given.
        """
        own = processes_of(self._prefix + "shard-00000.safetensors")
        for path in self.path.glob("*shard-*.safetensors"):
            found = processes_of(path.name)
            if found is None or own is None or found[1] == own[1]:
                continue
            with contextlib.suppress(FileNotFoundError):
                if not force:
                    self._require_same(path, len(self.candidates.part(*found)))
                path.unlink()

    def _require_same(self, shard: Path, capacity: int) -> None:
        header = whole_header(shard) if shard.exists() else None
        # One that is gone or damaged is nobody's any more.
        if header is not None and header.fields.get("resume_key") != self._key(capacity):
            raise UsageError(
                f"{self.path} holds shards of another trace; pass `force=True` to write over them"
            )

    def _key(self, capacity: int | None = None) -> str:
        info = replace(self._info, images=[], groups=None)
        made = (info.source, info.provenance.options, self.storage.__dict__)
        return fingerprint(info.identity, *made, self._capacity if capacity is None else capacity)

    def _current(self) -> ColumnWriter:
        if self._writer is None:
            size = self.storage.shard_images
            capacity = min(size, self._capacity - len(self.used)) if size else self._capacity
            target = self.path / self._shard_name(len(self._shards)) if size else self.path
            self._stack = contextlib.ExitStack()
            temporary = self._stack.enter_context(replacing(target))
            self._writer = ColumnWriter(
                temporary,
                self.storage.columns(self._info, self._head_width),
                capacity=capacity,
                header_bytes=self.candidates.header_bytes(capacity),
            )
            self._stack.callback(self._writer.close)
        return self._writer

    def finished_info(self, start: int = 0) -> TraceInfo:
        """What the trace says of the images from `start` on."""
        used = self.used[start:]
        candidates = self.candidates
        return self._info.with_skipped(
            used, self.skipped, candidates.names, candidates.content(used)
        )

    def _shard_name(self, number: int) -> str:
        return f"{self._prefix}shard-{number:05d}.safetensors"

    def _end_shard(self, *, partial_batch: bool) -> None:
        assert self._writer is not None
        info = self.finished_info(self._shard_start)
        # A shard that ends inside a batch cannot be gone on from: its cursor is not known.
        fields = {
            **info.fields(),
            "identity": info.identity,
            "resume_key": self._key(),
            "resume_cursor": None if partial_batch else self.cursor,
            "resume_content": self.candidates.content(range(self._shard_cursor, self.cursor)),
        }
        digest = self._writer.finish(fields)
        self._stack.close()
        file = self.path / self._shard_name(len(self._shards))
        self._shards.append(entry_of(file, info.images, digest))
        self._writer = None
        self._shard_start, self._shard_cursor = len(self.used), self.cursor


@contextlib.contextmanager
def writing(
    path: str | Path,
    info: TraceInfo,
    storage: Storage,
    candidates: Candidates,
    *,
    prefix: str = "",
    force: bool = False,
) -> Iterator[TraceWriter]:
    """Open a trace for writing; a failure leaves complete shards, or nothing.

    Parameters
    ----------
    path : path
        A file, or with ``storage.shard_images`` a folder.
    prefix : str
        Of the shards' names, where several processes write into one folder.

    Raises
    ------
    UsageError
        Where the disk has not enough room, a header would be larger than readers accept, or the
        folder holds another trace's shards.
    """
    target = Path(path)
    # What a killed run left there is not missing room.
    if storage.shard_images:
        remove_abandoned(target)
    else:
        remove_abandoned(target.parent, target.name)
    writer = TraceWriter(target, info, storage, candidates, prefix=prefix)
    if storage.shard_images:
        if target.is_file():
            raise UsageError(f"{target} is a file; a trace in shards needs a folder name")
        if force:
            for stale in target.glob(f"{prefix}shard-*.safetensors"):
                if processes_of(stale.name) is not None:
                    stale.unlink(missing_ok=True)
        writer.remove_others(force)
        writer.resume()
    require_room(target, writer.bytes_needed)
    _require_header(target, candidates, storage, info)
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise


def _require_header(
    target: Path, candidates: Candidates, storage: Storage, info: TraceInfo
) -> None:
    images = storage.shard_images or len(candidates.own)
    digests = digest_bytes(storage.columns(info), images)
    if candidates.header_bytes(images) + digests > HEADER_LIMIT:
        raise UsageError(
            f"the names of {images:,} images make a header that no reader of {target} would "
            "accept: pass a smaller `shard_size=`, or one at all"
        )
