"""Where pictures come from and how they become a model's input."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaikit.images.content import content_fingerprint
    from xaikit.images.decoding import BadImage
    from xaikit.images.pipeline import (
        Batch,
        NoUsableImageError,
        Skipped,
        SkippedImages,
        iter_batches,
    )
    from xaikit.images.sources import ImageSource, open_images
    from xaikit.images.split import stratified_split
    from xaikit.images.transform import framed, pixels_for

__all__ = [
    "BadImage",
    "Batch",
    "ImageSource",
    "NoUsableImageError",
    "Skipped",
    "SkippedImages",
    "content_fingerprint",
    "framed",
    "iter_batches",
    "open_images",
    "pixels_for",
    "stratified_split",
]

# The pipeline and the transform load torch, so names are looked up when first used.
_HOMES = {
    "BadImage": "decoding",
    "Batch": "pipeline",
    "ImageSource": "sources",
    "NoUsableImageError": "pipeline",
    "Skipped": "pipeline",
    "SkippedImages": "pipeline",
    "content_fingerprint": "content",
    "framed": "transform",
    "iter_batches": "pipeline",
    "open_images": "sources",
    "pixels_for": "transform",
    "stratified_split": "split",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
