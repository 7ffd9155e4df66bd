"""One image, by its path or by its name among others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage, read_image
from xaikit.images.digests import digest_of
from xaikit.images.folder import FileSource

if TYPE_CHECKING:
    from PIL.Image import Image

    from xaikit.images.sources import ImageSource


@dataclass(frozen=True)
class SingleImage:
    """An image that was asked for by name.

    Attributes
    ----------
    name : str
        As it was asked for; untrusted text.
    picture : PIL.Image.Image
        Decoded to mode RGB, upright.
    digest : str
        Of the bytes that were decoded.
    place : int, optional
        Where it is in the source it was looked for in; None for one that is not of it.
    """

    name: str
    picture: Image
    digest: str
    place: int | None = None


def find_image(name: str, source: ImageSource | None = None) -> SingleImage:
    """Open the image of a source with this id, or else the file at this path.

    Raises
    ------
    UsageError
        There is neither, or it cannot be read.
    """
    place = _place(name, source) if source is not None else None
    try:
        if source is not None and place is not None:
            digest = source.digest(place) if hasattr(source, "digest") else ""
            return SingleImage(name, source.load(place), digest, place)
        if not Path(name).exists():
            known = f" (such as {source.ids[0]})" if source is not None and len(source) else ""
            among = f", and no image of the run{known}" if source is not None else ""
            raise UsageError(f"{name}: no such file{among}")
        return _from_file(Path(name), name)
    except BadImage as error:
        raise UsageError(f"{name}: {error.reason}") from None


def _place(name: str, source: ImageSource) -> int | None:
    """Where the image is in the source, by its id or by the path of its file."""
    if name in source.ids:
        return source.ids.index(name)
    if isinstance(source, FileSource):
        path = Path(name).absolute()
        for place, each in enumerate(source.names):
            if source.root / each == path:
                return place
    return None


def _from_file(path: Path, name: str) -> SingleImage:
    import io

    from xaikit.images.decoding import decode

    data, _ = read_image(path, name)
    return SingleImage(name, decode(io.BytesIO(data), name), digest_of(data))
