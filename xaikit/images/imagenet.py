"""ImageNet, found and checked by torchvision, decoded as every other source is."""

from __future__ import annotations

import pickle
from os import PathLike
from pathlib import Path

from xaikit.errors import UsageError
from xaikit.images.folder import FileSource, existing_folder

_SPLITS = ("train", "val")


def open_imagenet(
    root: str | PathLike[str], split: str = "val", *, limit: int | None = None
) -> FileSource:
    """The images of ``torchvision.datasets.ImageNet(root, split)``, in its order.

    Ids are relative to the split's folder, groups are WordNet ids. torchvision reads
    ``meta.bin`` with ``weights_only``, so that it cannot run code.

    Raises
    ------
    UsageError
        The folder is not as torchvision expects it.
    """
    folder = existing_folder(root, "imagenet_root")
    if split not in _SPLITS:
        raise UsageError(f"`split={split}`: expected {' or '.join(_SPLITS)}")
    # Seconds to import, which no other source of images needs.
    from torchvision.datasets.imagenet import ARCHIVE_META, META_FILE, ImageNet

    _expect(folder, META_FILE, ARCHIVE_META["devkit"][0])
    _expect(folder, split, ARCHIVE_META[split][0])
    try:
        dataset = ImageNet(str(folder), split, allow_empty=True)
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"`imagenet_root={root}`: {META_FILE} cannot be read; torchvision writes it anew from "
            f"{ARCHIVE_META['devkit'][0]} where there is none"
        ) from error
    except KeyError as error:
        raise UsageError(
            f"`imagenet_root={root}`: folder {split}/{error.args[0]} is no class of {META_FILE}"
        ) from error
    except (RuntimeError, OSError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"`imagenet_root={root}`: torchvision says: {lines[0]}") from error
    base = Path(dataset.split_folder)
    names = [Path(path).relative_to(base).as_posix() for path, _ in dataset.imgs]
    if not names:
        raise UsageError(f"`imagenet_root={root}`: no images in {split}/")
    return FileSource(
        root=base,
        names=names,
        groups=[dataset.wnids[target] for target in dataset.targets],
        limit=limit,
        facts={"kind": "imagenet", "split": split},
        argument="imagenet_root",
    )


def _expect(folder: Path, entry: str, archive: str) -> None:
    if not (folder / entry).exists() and not (folder / archive).exists():
        raise UsageError(
            f"`imagenet_root={folder}`: torchvision expects {entry} or {archive} in it, found "
            "neither; for any other folder of images use `images=`"
        )
