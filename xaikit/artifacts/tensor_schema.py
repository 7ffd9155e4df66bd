"""What the tensors of a file may be: number format, shape, range; see `xaikit.artifacts.schema`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.files import again
from xaikit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("float32", "float64")
WHOLE = ("int64",)
CODES = ("uint8",)
_ROUNDING = 1e-6
"""What the mean of numbers in a range may go beyond it by."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor.

    Attributes
    ----------
    shape : str
        Letters of its sizes, as on the format's page.
    dtypes : tuple of str
    least, most : float, optional
        Range of its numbers, all of which are finite.
    nan : str
        Name of what may not be known, which makes all numbers NaN.
    optional : bool
        Whether a file may lack it.
    empty : bool
        Whether it may have no numbers in place of its shape.
    """

    shape: str
    dtypes: tuple[str, ...] = FLOATS
    least: float | None = None
    most: float | None = None
    nan: str = ""
    optional: bool = False
    empty: bool = False


def require_tensors(
    path: object,
    stage: str,
    specs: Mapping[str, TensorSpec],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    unknown: Collection[str] = (),
) -> dict[str, int]:
    """Refuse tensors that are not what their specifications say.

    Parameters
    ----------
    sizes : mapping of str to int
        Sizes that the file's fields give, by letter; the others are those of the first tensor.
    unknown : collection of str
        What is not known in this file, see `TensorSpec.nan`.

    Returns
    -------
    dict of str to int
        Sizes by letter.

    Raises
    ------
    UsageError
        Naming the file, the tensor, what it is and what it should be.
    """
    found = dict(sizes)
    for name, spec in specs.items():
        tensor = tensors.get(name)
        if tensor is None:
            if spec.optional:
                continue
            fault: str | None = f"it lacks {name}"
        else:
            fault = _shape_fault(name, spec, tensor, found) or _range_fault(
                name, spec, tensor, bool(spec.nan) and spec.nan in unknown
            )
        if fault:
            raise UsageError(f"{path}: {fault}; it is no complete {stage} file: {again(stage)}")
    return found


def _shape_fault(name: str, spec: TensorSpec, tensor: Tensor, sizes: dict[str, int]) -> str | None:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in spec.dtypes:
        return f"{name} is of {kind}, expected {' or '.join(spec.dtypes)}"
    if spec.empty and not tensor.numel():
        return None
    letters = spec.shape.split()
    expected = [sizes.get(letter) for letter in letters]
    fits = len(letters) == tensor.ndim and all(
        size in (None, extent) for size, extent in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        shown = [str(sizes.get(letter, letter)) for letter in letters]
        return f"{name} has shape {list(tensor.shape)}, expected [{', '.join(shown)}]"
    sizes.update(zip(letters, tensor.shape, strict=True))
    return None


def _range_fault(name: str, spec: TensorSpec, tensor: Tensor, unknown: bool) -> str | None:
    if not tensor.numel():
        return None
    least, most = (float(each) for each in torch.aminmax(tensor))
    if math.isnan(least) and unknown:
        return None if bool(torch.isnan(tensor).all()) else f"{name} is NaN in places"
    if not (math.isfinite(least) and math.isfinite(most)):
        return f"{name} holds numbers that are not finite"
    low = -math.inf if spec.least is None else spec.least
    high = math.inf if spec.most is None else spec.most
    if least < low - _ROUNDING or most > high + _ROUNDING:
        return f"{name} holds numbers in [{least:g}, {most:g}], expected [{low:g}, {high:g}]"
    return None
