"""What the outputs of a classifier head are called."""

from __future__ import annotations


def class_names(classes: int) -> list[str]:
    """Names of a head's outputs, of ImageNet-1k's in words."""
    if classes != 1000:
        return [f"class {index}" for index in range(classes)]
    # Seconds to import, for the names of one family of heads.
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    # The first of a class's synonyms.
    return [info.index_to_description(index).split(",")[0] for index in range(classes)]
