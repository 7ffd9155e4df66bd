"""The run's images, opened again from what the artefacts record of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, features

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import XaikitError
from xaikit.images.reopening import reopen
from xaikit.images.sources import ImageSource
from xaikit.images.transform import framed
from xaikit.report.page.parts import LayerParts
from xaikit.text import printable

TILE = 72
"""Most pixels along a side of a gallery tile."""
GREY = (127, 127, 127)


@dataclass(frozen=True)
class Recorded:
    """What a run's artefacts say of its images: ids in the order of the labels, and where from."""

    ids: list[str]
    groups: list[str] | None
    source: dict[str, Any]
    preprocess: dict[str, Any]
    skipped: int


def recorded(parts: LayerParts) -> Recorded | None:
    """The record of the images: of the trace, or of a run that kept none."""
    info = parts.trace.info if parts.trace is not None else None
    if info is None and parts.features.recorded:
        info = parts.features.info
    if info is not None:
        return Recorded(
            ids=list(info.images),
            groups=info.groups,
            source=info.source,
            preprocess=info.preprocess,
            skipped=info.skipped_count,
        )
    return None


class Pictures:
    """Images by their place in the run, framed as the model saw them.

    Attributes
    ----------
    reason : str
        Why there are none; empty where there are.
    """

    def __init__(self, parts: LayerParts) -> None:
        self.record = recorded(parts)
        self.source: ImageSource | None = None
        self.reason = ""
        self._places: dict[str, int] = {}
        self._framed: dict[int, Image.Image | None] = {}
        if self.record is None or not self.record.preprocess:
            self.reason = "the run keeps no record of its images"
            return
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.record.preprocess.items()
        }
        self.preprocess = Preprocess(**known)
        try:
            self.source = reopen(self.record.source)
        except (XaikitError, OSError, KeyError, TypeError, ValueError) as error:
            self.reason = f"the images cannot be opened again: {error}"
            return
        self._places = {name: at for at, name in enumerate(self.source.ids)}

    @property
    def ids(self) -> list[str]:
        """Names of the run's images, in the order of the labels; empty where unknown."""
        return self.record.ids if self.record is not None else []

    def name(self, image: int) -> str:
        """An image's name, safe to show."""
        return printable(self.ids[image]) if self.ids else f"image {image}"

    @property
    def small(self) -> bool:
        """Whether images have so few pixels that they are to be seen one by one."""
        return self.source is not None and max(self.preprocess.size) <= 96

    def framed(self, image: int) -> Image.Image | None:
        """Image `image` of the run as the model saw it; None where it is gone."""
        if image not in self._framed:
            self._framed[image] = self._load(image)
        return self._framed[image]

    def place(self, image: int) -> int | None:
        """Where image `image` of the run is in the source; None where it is gone."""
        if self.source is None or image >= len(self.ids):
            return None
        return self._places.get(self.ids[image])

    def _load(self, image: int) -> Image.Image | None:
        place = self.place(image)
        if self.source is None or place is None:
            return None
        try:
            return framed(self.source.load(place), self.preprocess)
        except (XaikitError, OSError):
            return None

    def available(self, images: Sequence[int], most: int) -> list[int]:
        """The first `most` of `images` that can be opened."""
        found: list[int] = []
        for image in images:
            if len(found) == most:
                break
            if self.framed(image) is not None:
                found.append(image)
        return found

    def tile(self, image: int, patch: int | None, grid: tuple[int, int]) -> str | None:
        """`cut`, as a data URI."""
        found = self.cut(image, patch, grid)
        return data_uri(found) if found is not None else None

    def cut(self, image: int, patch: int | None, grid: tuple[int, int]) -> Image.Image | None:
        """A patch with one patch of surround on every side.

        Parameters
        ----------
        image : int
        patch : int or None
            Place in the raster; None shows the whole image, for a prefix token.
        grid : (int, int)
            Rows and columns of patches.
        """
        whole = self.framed(image)
        if whole is None:
            return None
        if patch is None:
            return _at_most(whole, TILE)
        row, column = divmod(patch, grid[1])
        height, width = whole.height / grid[0], whole.width / grid[1]
        box = [round(v) for v in ((column - 1) * width, (row - 1) * height)]
        box += [round(v) for v in ((column + 2) * width, (row + 2) * height)]
        canvas = Image.new("RGB", (box[2] - box[0], box[3] - box[1]), GREY)
        canvas.paste(whole, (-box[0], -box[1]))
        return _at_most(canvas, TILE)


def _at_most(image: Image.Image, side: int) -> Image.Image:
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def data_uri(image: Image.Image, quality: int = 82) -> str:
    """An image as a data URI: WebP where this PIL writes it, else PNG."""
    buffer = io.BytesIO()
    if features.check("webp"):
        # Few pixels are drawn large, where the colours of lossy compression would smear.
        image.save(buffer, "WEBP", quality=quality, method=4, lossless=max(image.size) <= 64)
        kind = "webp"
    else:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def packed(values: np.ndarray) -> dict[str, Any]:
    """Numbers as bytes between their least and their largest, for the page's scripts.

    Values that are not finite are written as the least one.
    """
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    span = (high - low) or 1.0
    scaled = np.nan_to_num((values - low) / span, nan=0.0, posinf=1.0, neginf=0.0)
    data = np.round(scaled * 255).clip(0, 255).astype(np.uint8)
    return {"lo": low, "hi": high, "shape": list(values.shape), "u8": _base64(data)}


def packed_labels(labels: np.ndarray) -> dict[str, Any]:
    """Cluster numbers as little-endian 16-bit integers."""
    return {"shape": list(labels.shape), "u16": _base64(labels.astype("<u2"))}


def _base64(data: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(data).tobytes()).decode()
