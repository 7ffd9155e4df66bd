"""Views of one image: the whole of it, crops and mirror images, as a source of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage, decode_path
from xaikit.images.digests import digest_of_picture

if TYPE_CHECKING:
    from xaikit.images.sources import ImageSource

LEAST_AREA, MOST_AREA = 0.6, 0.95
"""Of a crop, as shares of the image."""


def find_image(source: ImageSource | None, text: str) -> Image.Image:
    """The image that an id of a source, or else a path, names.

    Raises
    ------
    UsageError
        If there is no such image, or it cannot be used.
    """
    places = {name: place for place, name in enumerate(source.ids)} if source is not None else {}
    try:
        if source is not None and text in places:
            return source.load(places[text])
        if not Path(text).is_file():
            known = f" nor the id of an image, such as {next(iter(places))}" if places else ""
            raise UsageError(f"IMAGE {text}: neither a file{known}")
        return decode_path(Path(text), text)
    except BadImage as error:
        raise UsageError(f"IMAGE {text}: {error.reason}") from None


class Views:
    """Views of an image, the first half to choose on and the second half to test on.

    The first view is the whole image, the first of the second half its mirror image; the others
    are crops of 60 to 95 % of the area and of the image's shape, those of the second half mirrored
    in turn. They follow from the seed and the number of the view.

    Parameters
    ----------
    image : PIL.Image.Image
    count : int
        Views, an even number of two or more.
    seed : int

    Attributes
    ----------
    ids : list of str
        Says what each view is.
    """

    groups: list[str] | None = None

    def __init__(self, image: Image.Image, count: int, seed: int = 0) -> None:
        if count < 2 or count % 2:
            raise UsageError(f"`views={count}`: expected an even number, half of them to test on")
        self.image, self.seed, self._half = image, seed, count // 2
        self.ids = [self._name(view) for view in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def choose(self) -> list[int]:
        """Views to rank edges on."""
        return list(range(self._half))

    @property
    def test(self) -> list[int]:
        """Views that nothing is chosen on."""
        return list(range(self._half, len(self)))

    def load(self, i: int) -> Image.Image:
        """View `i`, in the image's own resolution."""
        found = self.image.crop(self._box(i)) if i % self._half else self.image
        return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self._mirrored(i) else found

    def digest(self, i: int) -> str:
        """Of the view's pixels."""
        return digest_of_picture(self.load(i))

    def describe(self) -> dict[str, Any]:
        """What the views are of."""
        return {"kind": "views", "count": len(self), "seed": self.seed}

    def _mirrored(self, view: int) -> bool:
        return view >= self._half and (view - self._half) % 2 == 0

    def _name(self, view: int) -> str:
        part = f"crop {view}" if view % self._half else "whole image"
        return f"{part}, mirrored" if self._mirrored(view) else part

    def _box(self, view: int) -> tuple[int, int, int, int]:
        drawn = np.random.default_rng([self.seed, 15, view]).random(3)
        scale = float(np.sqrt(LEAST_AREA + (MOST_AREA - LEAST_AREA) * drawn[0]))
        width, height = (max(1, round(scale * side)) for side in self.image.size)
        left = round(drawn[1] * (self.image.width - width))
        top = round(drawn[2] * (self.image.height - height))
        return left, top, left + width, top + height
