"""How pixels become a model's input: recorded in every trace, set by towers, used by images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize, crop and normalisation of one model.

    Attributes
    ----------
    size : tuple of int
        (height, width) of the model's input, in pixels.
    mean, std : tuple of float
        Per-channel normalisation of pixels in [0, 1].
    resize : int, optional
        Shorter side before the centre crop, in pixels; None resizes to `size`.
    mode : str
        ``shortest`` (resize the shorter side, centre crop), ``squash`` (ignore the aspect
        ratio) or ``longest`` (fit inside, pad with `fill`).
    interpolation : str
        ``bicubic``, ``bilinear``, ``nearest``, ``lanczos``, ``box`` or ``hamming``.
    fill : int
        Padding value, 0-255.
    crop : str
        Where an odd number of pixels is cut off: ``round`` (half to even, as torchvision does) or
        ``floor`` (one less before than after, as transformers does).
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int | None = None
    mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0
    crop: str = "round"
