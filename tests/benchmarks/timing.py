"""What the benchmarks share: images, and timing in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from xaikit.images.digests import digest_of_picture

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.images import ImageSource
    from xaikit.towers import Tower


class NoiseImages:
    """Images of noise at the model's own size, so that decoding costs little."""

    groups = None

    def __init__(self, count: int, side: int) -> None:
        self.ids = [f"{i:05d}.png" for i in range(count)]
        self._side = side

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        """Draw image `i`."""
        pixels = np.random.default_rng(i).integers(0, 256, (self._side, self._side, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    def digest(self, i: int) -> str:
        """Of the pixels of image `i`."""
        return digest_of_picture(self.load(i))

    def describe(self) -> dict[str, Any]:
        """Say what the source is."""
        return {"kind": "noise"}


def images(count: int, side: int) -> ImageSource:
    """The photos of ``--images``, or noise."""
    folder = os.environ.get("XAIKIT_BENCH_IMAGES")
    if folder is None:
        return NoiseImages(count, side)
    from xaikit.images import open_images

    return open_images(images=folder, max_images=count)


def pixels(tower: Tower, count: int) -> Tensor:
    """The first `count` images, decoded: ``[count, 3, height, width]``."""
    from xaikit.images import iter_batches

    source = images(count, tower.info.image_size[0])
    (batch,) = iter_batches(source, tower.preprocess, batch_size=count, limit=count)
    return batch.pixels


def in_turns(
    ours: Callable[[], object],
    reference: Callable[[], object],
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Least seconds of each, run in turns after one warm-up.

    Parameters
    ----------
    clock : callable
        ``time.process_time`` where other programs share the processors and both sides keep one
        thread busy.
    """
    times: tuple[list[float], list[float]] = ([], [])
    ours(), reference()
    for _ in range(repeats):
        for run, found in zip((ours, reference), times, strict=True):
            start = clock()
            run()
            found.append(clock() - start)
    return min(times[0]), min(times[1])


def row(ours: float, reference: float, limit: float, notes: str, unit: str = "s") -> dict[str, Any]:
    """One row of the table."""
    return {
        "ours_s": ours,
        "reference_s": reference,
        "ratio": ours / reference,
        "limit": limit,
        "notes": notes,
        "unit": unit,
    }


class Names:
    """Of images that are nowhere."""

    groups = None

    def __init__(self, count: int) -> None:
        self.ids = [f"{i:06d}.png" for i in range(count)]
