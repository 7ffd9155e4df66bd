"""From an RGB picture to a model's input, with the very numbers of torchvision and open_clip.

Resizing is PIL's. torchvision itself is not imported: its import alone takes about a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from xaikit.artifacts.preprocess import Preprocess

_FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
}
_MODES = ("shortest", "squash", "longest")
_CROPS = ("round", "floor")
_MOST_PIXELS = 2**26


def check_preprocess(preprocess: Preprocess) -> None:
    """Refuse a mode, interpolation or crop that `framed` does not know, with a UsageError."""
    if preprocess.mode not in _MODES:
        raise UsageError(f"resize mode {preprocess.mode!r}: expected one of {', '.join(_MODES)}")
    if preprocess.interpolation not in _FILTERS:
        raise UsageError(
            f"interpolation {preprocess.interpolation!r}: expected one of {', '.join(_FILTERS)}"
        )
    if preprocess.crop not in _CROPS:
        raise UsageError(f"crop {preprocess.crop!r}: expected one of {', '.join(_CROPS)}")


def framed(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The picture as the model sees it, resized and cropped or padded, before normalisation.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, any size.
    preprocess : Preprocess
        With ``resize`` set, the picture is fitted to a frame with that shorter side and the
        shape of ``size``, from which ``size`` is then cropped at the centre.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, ``size[1]`` pixels wide and ``size[0]`` high.

    Raises
    ------
    BadImage
        The picture is so long and thin that resizing it would take gigabytes.
    """
    height, width = _resized(image.height, image.width, preprocess)
    if height * width > _MOST_PIXELS:
        raise BadImage("image", f"{image.width} x {image.height} pixels are too long and thin")
    if (width, height) != image.size:
        image = image.resize((width, height), _FILTERS[preprocess.interpolation])
    fill = preprocess.fill if preprocess.mode == "longest" else 0
    return _centred(image, preprocess, fill)


def normalised(
    frames: UInt8[np.ndarray, "image row column 3"], preprocess: Preprocess
) -> Float[Tensor, "image 3 row column"]:
    """Scale pixels from 0-255 to 0-1, subtract the mean, divide by the standard deviation."""
    count, height, width, channels = frames.shape
    pixels = torch.empty((count, channels, height, width), dtype=torch.float32)
    pixels.copy_(torch.from_numpy(frames).permute(0, 3, 1, 2)).div_(255)
    mean, std = (
        torch.tensor(each, dtype=torch.float32).view(3, 1, 1)
        for each in (preprocess.mean, preprocess.std)
    )
    return pixels.sub_(mean).div_(std)


def pixels_for(image: Image.Image, preprocess: Preprocess) -> Float[Tensor, "3 row column"]:
    """The model's input for one picture, the same numbers as in a `Batch`.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; other modes than RGB are converted by PIL.
    preprocess : Preprocess

    Returns
    -------
    Tensor, float32 ``[3, height, width]``

    Raises
    ------
    UsageError
        A resize mode, an interpolation or a crop of `preprocess` is unknown.
    BadImage
        See `framed`.
    """
    check_preprocess(preprocess)
    frame = framed(image if image.mode == "RGB" else image.convert("RGB"), preprocess)
    return normalised(np.array(frame)[None], preprocess)[0]


def _resized(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Height and width after resizing, rounded as torchvision or open_clip round."""
    frame_height, frame_width = preprocess.size
    if preprocess.resize is not None:
        shorter = min(preprocess.size)
        frame_height = round(frame_height * preprocess.resize / shorter)
        frame_width = round(frame_width * preprocess.resize / shorter)
    if preprocess.mode == "squash":
        return frame_height, frame_width
    if preprocess.mode == "shortest" and frame_height == frame_width:
        # torchvision.transforms.Resize(int) truncates ...
        longer = int(frame_height * max(height, width) / min(height, width))
        return (longer, frame_width) if height >= width else (frame_height, longer)
    # ... and open_clip's ResizeKeepRatio rounds.
    pick = min if preprocess.mode == "shortest" else max
    ratio = pick(height / frame_height, width / frame_width)
    return max(round(height / ratio), 1), max(round(width / ratio), 1)


def _centred(image: Image.Image, preprocess: Preprocess, fill: int) -> Image.Image:
    """Crop and pad at the centre."""
    height, width = preprocess.size
    if image.size == (width, height):
        return image
    canvas = Image.new("RGB", (width, height), (fill, fill, fill))
    floors = preprocess.crop == "floor"
    offset = _start(image.width, width, floors), _start(image.height, height, floors)
    canvas.paste(image, offset)
    return canvas


def _start(have: int, want: int, floors: bool) -> int:
    if want > have:
        return (want - have) // 2
    return -((have - want) // 2) if floors else -round((have - want) / 2)
