"""What a run is given: the model and the images, as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xaikit.artifacts.options import option
from xaikit.errors import UsageError

DEMO = "xaikit-demo"
"""The model that comes with the package, and its images."""

PRECISIONS = ("float32", "bfloat16", "float16")
_MODEL, _IMAGES = "Model", "Images"
_LIKE_TAG = option(
    None,
    "Tag of the model's name whose preprocessing and activation a local file has.",
    panel=_MODEL,
    metavar="TAG",
)
_QUICK_GELU = option(
    None,
    "Whether the activation is QuickGELU; default: what is known of the weights.",
    panel=_MODEL,
)


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """How a model is run.

    Attributes
    ----------
    device : str
        A torch device, or ``auto``: CUDA, then MPS, then the CPU.
    precision : str
        Number format of the forward pass.
    """

    device: str = option(
        "auto",
        "Torch device, such as `cpu` or `cuda:0`; `auto` is CUDA, then MPS, then the CPU.",
        panel=_MODEL,
        idle=True,
    )
    precision: str = option(
        "float32",
        "Of the forward pass; logits are float32 always.",
        panel=_MODEL,
        choices=PRECISIONS,
    )
    seed: int = option(0, "Of everything random.", panel="Running", least=0)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is run.

    Attributes
    ----------
    model : str
        An open_clip name, ``timm/NAME``, an open_clip config file or the demo.
    pretrained : str, optional
        A tag, a checkpoint, a folder or ``random``.
    like_tag : str, optional
        Tag of the name that a local file is prepared and activated like.
    quick_gelu : bool, optional
        Whether the activation is QuickGELU, in place of what is known of the weights.
    """

    model: str = option(
        DEMO,
        "open_clip name, `timm/NAME`, an open_clip config file (.json), `hf-hub:ORG/NAME`, "
        "`local-dir:PATH` or `xaikit-demo`; `xaikit models` lists them.",
        panel=_MODEL,
    )
    pretrained: str | None = option(
        None,
        "Tag, local checkpoint, `hf-hub:ORG/NAME`, `local-dir:PATH`, or `random` for seeded "
        "random weights. The demo brings its own.",
        panel=_MODEL,
    )
    like_tag: str | None = _LIKE_TAG
    quick_gelu: bool | None = _QUICK_GELU


@dataclass(frozen=True, kw_only=True)
class FitModelOptions:
    """Which model is run on a fit: its own, unless told otherwise."""

    model: str | None = option(None, "Default: the fit's.", panel=_MODEL)
    pretrained: str | None = option(None, "Default: the fit's.", panel=_MODEL)
    like_tag: str | None = _LIKE_TAG
    quick_gelu: bool | None = _QUICK_GELU


def triple(text: str) -> tuple[float, float, float]:
    """Read ``r,g,b``."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("three numbers such as 0.5,0.5,0.5") from None
    return red, green, blue


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """How pixels are prepared, in place of the model's own way.

    Attributes
    ----------
    mean, std : (float, float, float), optional
    resize : int, optional
        Shorter side before the crop, in pixels.
    resize_mode : str, optional
        ``shortest``, ``squash`` or ``longest``.
    """

    mean: tuple[float, ...] | None = option(
        None,
        "Pixel mean, `r,g,b` in [0, 1]; default: the model's.",
        panel=_MODEL,
        parse=triple,
        metavar="R,G,B",
    )
    std: tuple[float, ...] | None = option(
        None,
        "Pixel deviation, `r,g,b`; default: the model's.",
        panel=_MODEL,
        parse=triple,
        metavar="R,G,B",
    )
    resize: int | None = option(
        None,
        "Shorter side before the centre crop, in pixels; default: the model's.",
        panel=_MODEL,
        least=1,
    )
    resize_mode: str | None = option(
        None,
        "How images get the model's shape: the shorter side fits and the rest is cut, both are "
        "squashed, or the longer side fits and the rest is filled; default: the model's.",
        panel=_MODEL,
        choices=("shortest", "squash", "longest"),
    )


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Where images come from.

    Attributes
    ----------
    images : path, optional
        A folder.
    imagenet_root : path, optional
    split : str
        Part of ImageNet.
    webdataset : str, optional
    dataset : str, optional
        A Hugging Face data set.
    """

    images: Path | None = option(None, "Folder of images, with subfolders.", panel=_IMAGES)
    imagenet_root: Path | None = option(
        None, "ImageNet folder as torchvision expects it.", panel=_IMAGES
    )
    split: str = option("val", "Part of ImageNet.", panel=_IMAGES, choices=("train", "val"))
    webdataset: str | None = option(
        None,
        "WebDataset shards: a .tar, a folder, a glob or `{0000..0007}.tar`.",
        panel=_IMAGES,
    )
    dataset: str | None = option(
        None,
        "Hugging Face data set: `NAME[@CONFIG][:SPLIT[:COLUMN]]`, a folder or a name on the hub.",
        panel=_IMAGES,
    )

    @property
    def given(self) -> bool:
        """Whether any source is named."""
        named = (self.images, self.imagenet_root, self.webdataset, self.dataset)
        return any(each is not None for each in named)


def require_parts(tower: Any, source: Any) -> None:
    """Raise a UsageError that says what to pass, unless a tower and a source of images are given.

    A stage is also called from Python, where a module or a list of files comes as easily.
    """
    if not all(hasattr(tower, name) for name in ("info", "blocks", "outputs")):
        raise UsageError(
            f"a model is expected as a tower, not as {type(tower).__name__}: pass "
            "xaikit.load_tower(NAME, WEIGHTS), or xaikit.load_tower(MODULE) of one that is built"
        )
    if not all(hasattr(source, name) for name in ("ids", "load", "__len__")):
        raise UsageError(
            f"images are expected as a source, not as {type(source).__name__}: pass "
            "xaikit.open_images(images=FOLDER), or its imagenet_root, webdataset, dataset or demo"
        )
