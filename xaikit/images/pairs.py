"""Pairs of images that differ in one thing: demo scenes, and photos with a word written on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from xaikit.errors import UsageError
from xaikit.images.scenes import FACTORS, draw_batch

if TYPE_CHECKING:
    from xaikit.images.sources import ImageSource

WORD_WIDTH = 0.8
"""Width of a written word, as a share of the image's."""


def demo_pairs(
    count: int, factor: str, seed: int = 0
) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Draw pairs of scenes that differ in one factor.

    Yields
    ------
    tuple
        Name, the scene, and the same scene with the next value of the factor.

    Raises
    ------
    UsageError
        If there is no such factor or no scene to draw.
    """
    if factor not in FACTORS:
        raise UsageError(f"`factor={factor}`: expected one of {', '.join(FACTORS)}")
    if count < 1:
        raise UsageError(f"`count={count}`: expected 1 or more")
    for index in range(count):
        own, other = (draw_batch(seed, [index], change)[0][0] for change in (None, factor))
        yield f"{index:06d}", Image.fromarray(own), Image.fromarray(other)


def read_words(path: Path) -> list[str]:
    """Words, one a line.

    Raises
    ------
    UsageError
        If the file cannot be read or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"`words={path}`: {reason}") from None
    words = [line.strip() for line in text.splitlines() if line.strip()]
    if not words:
        raise UsageError(f"`words={path}`: empty; expected one word a line")
    return words


def typographic_pairs(
    source: ImageSource, words: Sequence[str], count: int | None = None
) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Write words onto images, in turn.

    Yields
    ------
    tuple
        The image's id without its suffix, the image, and the image with a word on it.
    """
    names = [str(Path(name).with_suffix("")) for name in source.ids[:count]]
    for place, name in enumerate(names):
        if names.count(name) > 1:
            name = source.ids[place]
        image = source.load(place)
        yield name, image, with_word(image, words[place % len(words)])


def with_word(image: Image.Image, word: str) -> Image.Image:
    """A copy with a word across it, black on a white strip, whatever the image's size."""
    found = image.convert("RGB").copy()
    draw = ImageDraw.Draw(found)
    width, height = found.size
    size = max(6.0, height / 6)
    wide = draw.textlength(word, font=ImageFont.load_default(size))
    font = ImageFont.load_default(max(4.0, min(size, size * WORD_WIDTH * width / max(wide, 1.0))))
    left, top, right, bottom = draw.textbbox((width / 2, height / 2), word, font=font, anchor="mm")
    margin = (bottom - top) / 3
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill="white")
    draw.text((width / 2, height / 2), word, font=font, fill="black", anchor="mm")
    return found


def save_pairs(
    pairs: Iterator[tuple[str, Image.Image, Image.Image]], folder: Path, suffix: str
) -> dict[str, str]:
    """Write both images of every pair as PNG; return each one's partner, by the file's id.

    Raises
    ------
    UsageError
        If the folder holds something already: nothing is overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"`out={folder}`: exists and is not empty; choose a new folder")
    partners: dict[str, str] = {}
    for name, own, other in pairs:
        ids = (f"{name}.png", f"{name}-{suffix}.png")
        for made, image in zip(ids, (own, other), strict=True):
            path = folder / "images" / made
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        partners |= {ids[0]: ids[1], ids[1]: ids[0]}
    return partners
