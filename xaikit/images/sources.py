"""Where images come from: one protocol, and the choice among the command line's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Protocol

from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.folder import open_folder
from xaikit.images.huggingface import open_dataset
from xaikit.images.imagenet import open_imagenet
from xaikit.images.scenes import SceneSource
from xaikit.images.webdataset import open_webdataset

DEMO_IMAGES = 512


class ImageSource(Protocol):
    """A fixed list of images, decoded when asked for.

    A source may also have ``limit``, the number of usable images wanted of it: which ones these
    are is only known once they are decoded, so `iter_batches` applies it.
    """

    @property
    def ids(self) -> list[str]:
        """One distinct name per image, the same on every run."""
        ...

    @property
    def groups(self) -> list[str] | None:
        """The folder or class of every image, where there is such a thing."""
        ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> Image.Image:
        """Decode image `i` to mode RGB, upright. Callable from several threads at once.

        Raises
        ------
        BadImage
            The image cannot be used.
        """
        ...

    def digest(self, i: int) -> str:
        """32 hexadecimal digits of the bytes that `load` decodes; never raises.

        An image that cannot be read has a digest made from the reason. A source may lack this
        method: its decoded pixels are hashed then, see `content_fingerprint`.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What the source is, for a record: JSON values only."""
        ...


def open_images(
    *,
    images: str | PathLike[str] | None = None,
    imagenet_root: str | PathLike[str] | None = None,
    split: str = "val",
    webdataset: str | PathLike[str] | Sequence[str] | None = None,
    dataset: str | PathLike[str] | None = None,
    demo: bool = False,
    seed: int = 0,
    max_images: int | None = None,
) -> ImageSource:
    """Open one of the inputs; nothing is decoded yet.

    Parameters
    ----------
    images : path, optional
        A folder; images are taken from it and its subfolders.
    imagenet_root : path, optional
        What ``torchvision.datasets.ImageNet`` takes.
    split : str
        ``train`` or ``val``, of ImageNet.
    webdataset : str or path, or several, optional
        A .tar shard, a folder of shards, a glob or a brace list such as ``{0000..0007}.tar``.
    dataset : str or path, optional
        A Hugging Face data set, ``NAME[@CONFIG][:SPLIT[:COLUMN]]``, see `open_dataset`.
    demo : bool
        Scenes drawn by code.
    seed : int
        Of the demo.
    max_images : int, optional
        Usable images wanted, the first in order; by default all, of the demo `DEMO_IMAGES`.

    Raises
    ------
    UsageError
        Not exactly one input is given, it does not exist, or it has no images.
    """
    if max_images is not None and max_images < 1:
        raise UsageError(f"`max_images=` is {max_images}: expected 1 or more")
    given = {
        "`images=`": images is not None,
        "`imagenet_root=`": imagenet_root is not None,
        "`webdataset=`": webdataset is not None,
        "`dataset=`": dataset is not None,
        "the demo": demo,
    }
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) != 1:
        got = " and ".join(chosen) or "none of them"
        raise UsageError(
            "expected exactly one of `images=`, `imagenet_root=`, `webdataset=` and `dataset=`, "
            f"got {got}"
        )
    if images is not None:
        return open_folder(images, limit=max_images)
    if imagenet_root is not None:
        return open_imagenet(imagenet_root, split, limit=max_images)
    if webdataset is not None:
        return open_webdataset(webdataset, limit=max_images)
    if dataset is not None:
        return open_dataset(dataset, limit=max_images)
    return SceneSource(DEMO_IMAGES if max_images is None else max_images, seed)
