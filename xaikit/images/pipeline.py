"""Decode and resize images in parallel, into full batches, in order.

Our own, and no `torch.utils.data.DataLoader`: a file that cannot be decoded is skipped, named and
counted while batches stay full and in order, which a DataLoader (one index in, one item out) cannot
do; Pillow decodes outside the interpreter lock, so threads are enough and nothing is pickled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from xaikit.errors import UsageError, XaikitError
from xaikit.images.bounds import ROOM
from xaikit.images.decoding import BadImage
from xaikit.images.transform import check_preprocess, framed, normalised
from xaikit.machine import usable_processors
from xaikit.progress import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float32
    from torch import Tensor

    from xaikit.artifacts.preprocess import Preprocess
    from xaikit.images.sources import ImageSource


@dataclass(frozen=True)
class Batch:
    """Some images, ready for a model.

    Attributes
    ----------
    indices : list of int
        Positions in the source.
    ids : list of str
        The source's ids at `indices`.
    pixels : Tensor, float32 ``[len(indices), 3, height, width]``
        Normalised.
    """

    indices: list[int]
    ids: list[str]
    pixels: Float32[Tensor, "image 3 row column"]

    def __len__(self) -> int:
        return len(self.indices)


class NoUsableImageError(XaikitError):
    """Not one of the images asked for can be used."""


@dataclass(frozen=True)
class Skipped:
    """An image left out.

    Attributes
    ----------
    id : str
    reason : str
        Why, in a few words.
    index : int, optional
        Its position in the source, where that is known.
    """

    id: str
    reason: str
    index: int | None = None


@dataclass
class SkippedImages:
    """What `iter_batches` left out, in order."""

    records: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Skipped]:
        return iter(self.records)

    def summary(self, most: int = 3) -> str:
        """One line that names the first `most` of them; empty where none was left out."""
        if not self.records:
            return ""
        named = [f"{each.id} ({each.reason})" for each in self.records[:most]]
        if len(self) > most:
            named.append(f"and {len(self) - most} more")
        return f"{len(self)} image{'s' * (len(self) > 1)} left out: {', '.join(named)}"


def iter_batches(
    source: ImageSource,
    preprocess: Preprocess,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> Generator[Batch, None, None]:
    """Decode, resize and normalise images; bad ones are left out and the next ones move up.

    Threads decode ahead of the consumer by about one batch, so memory does not grow with the
    number of images. Closing the iterator early stops them.

    Parameters
    ----------
    source : ImageSource
    preprocess : Preprocess
    batch_size : int
        Images per batch; only the last batch may have fewer.
    indices : sequence of int, optional
        Positions in the source, in the order wanted; all by default.
    limit : int, optional
        Stop after this many usable images. By default the source's own ``limit`` where it has
        one and `indices` is not given.
    workers : int, optional
        Threads; by default one for each processor this process may use, at most 16.
    strict : bool
        The first bad image ends the run.
    skipped : SkippedImages, optional
        Collects what was left out.
    progress : Progress
        Called with ``"images"`` as each batch has been used.

    Raises
    ------
    UsageError
        `batch_size`, `limit`, `workers` or `preprocess` is out of range.
    XaikitError
        No image at all is usable, or one is bad and `strict` is set.
    """
    if limit is None and indices is None:
        limit = getattr(source, "limit", None)
    workers = usable_processors() if workers is None else workers
    for name, value in (("batch_size", batch_size), ("limit", limit), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: expected 1 or more")
    check_preprocess(preprocess)
    wanted = range(len(source)) if indices is None else [int(index) for index in indices]
    skipped = SkippedImages() if skipped is None else skipped
    done, skipped_before = 0, len(skipped)
    most = len(wanted) if limit is None else min(limit, len(wanted))
    ahead = batch_size + 2 * workers
    frames = decoded_frames(source, preprocess, wanted, most=most, workers=workers, ahead=ahead)
    try:
        progress("images", 0, most)
        good = _usable(frames, strict, skipped)
        while taken := list(islice(good, batch_size)):
            picked = [index for index, _ in taken]
            pixels = normalised(np.stack([frame for _, frame in taken]), preprocess)
            yield Batch(picked, [source.ids[index] for index in picked], pixels)
            done += len(taken)
            progress("images", done, min(most, len(wanted) - len(skipped) + skipped_before))
    finally:
        frames.close()
    if wanted and not done:
        first = skipped.records[skipped_before]
        raise NoUsableImageError(
            f"none of the {len(wanted)} images can be used; the first is {first.id}: {first.reason}"
        )


def _usable(
    frames: Iterable[tuple[int, np.ndarray | BadImage]], strict: bool, skipped: SkippedImages
) -> Iterator[tuple[int, np.ndarray]]:
    for index, frame in frames:
        if not isinstance(frame, BadImage):
            yield index, frame
        elif strict:
            raise XaikitError(f"image {frame.id} cannot be used: {frame.reason}") from frame
        else:
            skipped.records.append(Skipped(frame.id, frame.reason, index))


def decoded_frames(
    source: ImageSource,
    preprocess: Preprocess,
    wanted: Sequence[int],
    *,
    most: int,
    workers: int,
    ahead: int,
) -> Generator[tuple[int, np.ndarray | BadImage], None, None]:
    """Frames (uint8 ``[height, width, 3]``) in order, until `most` of them are no `BadImage`.

    No more than `ahead` are in memory, and none is decoded that cannot be among the `most`.
    """

    def frame_of(index: int) -> np.ndarray | BadImage:
        try:
            with ROOM.kept():
                return np.array(framed(source.load(index), preprocess))
        except BadImage as error:
            return BadImage(source.ids[index], error.reason)

    queue = iter(wanted)
    pending: deque[tuple[int, Future[np.ndarray | BadImage]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="xaikit-images")
    try:
        while most:
            for index in islice(queue, min(most, ahead) - len(pending)):
                pending.append((index, pool.submit(frame_of, index)))
            if not pending:
                return
            index, future = pending.popleft()
            frame = future.result()
            most -= not isinstance(frame, BadImage)
            yield index, frame
    finally:
        pool.shutdown(cancel_futures=True)
