"""How many of a source's images it takes to have so many usable ones."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from xaikit.images.decoding import BadImage
from xaikit.images.pipeline import decoded_frames
from xaikit.machine import usable_processors

if TYPE_CHECKING:
    from xaikit.artifacts.preprocess import Preprocess
    from xaikit.images.sources import ImageSource


def candidate_count(
    source: ImageSource,
    preprocess: Preprocess,
    max_images: int | None,
    workers: int | None = None,
) -> int:
    """Number of the first images that hold `max_images` usable ones; all where they do not.

    Every pass of a run, streamed or not, in one process or several, is over these *candidates*,
    so that all of them split, sample and order the same images. Only where fewer images than
    there are were asked for must they be decoded to know.

    Parameters
    ----------
    max_images : int, optional
        Default: the source's own ``limit``, where it has one.
    """
    wanted = max_images or getattr(source, "limit", None)
    if wanted is None or wanted >= len(source):
        return len(source)
    count = 0
    threads = workers or usable_processors()
    made = decoded_frames(
        source, preprocess, range(len(source)), most=wanted, workers=threads, ahead=4 * threads
    )
    with closing(made) as frames:
        for index, frame in frames:
            count = index + 1
            wanted -= not isinstance(frame, BadImage)
    return len(source) if wanted else count
