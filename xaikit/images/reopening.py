"""Open again the images that a trace was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.images.sources import ImageSource, open_images


def reopen(described: Mapping[str, Any]) -> ImageSource:
    """Open the source that ``ImageSource.describe()`` is a description of.

    Raises
    ------
    UsageError
        If the description does not say where the images are, or they are no longer there.
    """
    kind = described.get("kind")
    if kind == "demo":
        return SceneSource(int(described["count"]), int(described["seed"]))
    if kind in ("folder", "imagenet"):
        # Ids are relative to the folder that is recorded, of ImageNet the split's.
        return open_images(images=described["root"])
    if kind == "webdataset":
        return open_images(webdataset=described["shards"])
    if kind == "datasets":
        return open_images(dataset=described["spec"])
    raise UsageError(
        "the images cannot be found from the artefacts: pass `images=`, `imagenet_root=`, "
        "`webdataset=` or `dataset=` as for `xaikit trace`"
    )
