"""Is what xaikit reads what the model computes? Asked of every tower before it is trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xaikit.errors import XaikitError
from xaikit.towers.capture import tapping
from xaikit.towers.edit import editing
from xaikit.towers.interception import AttentionCall, intercepting

if TYPE_CHECKING:
    from jaxtyping import Float

    from xaikit.towers.tower import Tower

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest error of the recomputed attention output, as a share of the output's scale."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Outcome of `self_check`.

    Attributes
    ----------
    model : str
    errors : dict of int to float
        Layer to the largest absolute difference between the attention module's output and the
        one recomputed from the captured logits, over the largest absolute output.
    tolerance : float
        What each error may be at most.
    bit_identical : bool
        Whether capturing left the tower's output unchanged to the last bit.
    edit_error : float
        Largest absolute change of the embedding when the checked layers' logits are edited into
        themselves, over the largest absolute embedding.
    """

    model: str
    errors: dict[int, float]
    tolerance: float
    bit_identical: bool
    edit_error: float

    @property
    def passed(self) -> bool:
        """Whether the tower can be trusted."""
        errors = [self.edit_error, *self.errors.values()]
        return self.bit_identical and all(error <= self.tolerance for error in errors)

    def describe(self) -> str:
        """Say the outcome in one line."""
        layer = max(self.errors, key=lambda layer: self.errors[layer])
        words = [
            f"largest attention error {self.errors[layer]:.1e} of its scale (layer {layer}, "
            f"tolerance {self.tolerance:.0e})",
            f"editing logits into themselves moves the embedding by {self.edit_error:.1e}",
        ]
        if not self.bit_identical:
            words.append("capturing changes the output")
        return f"{self.model}: self-check {'passed' if self.passed else 'failed'}: " + "; ".join(
            words
        )


def self_check(
    tower: Tower,
    *,
    layers: Sequence[int] | None = None,
    pixels: Float[Tensor, "batch 3 height width"] | None = None,
) -> CheckResult:
    """Recompute attention outputs from captured logits and compare them with the model's own.

    For every layer, ``softmax(captured logits) @ values`` is pushed through the attention
    module's own remaining steps and compared with what the untouched module returned. Then the
    whole tower runs with those layers' logits edited into themselves.

    Parameters
    ----------
    tower : Tower
    layers : sequence of int, optional
        Default: all. Each costs one more attention, of `pixels` alone.
    pixels : Tensor, optional
        ``[B, 3, height, width]``; default: one image of seeded noise.

    Returns
    -------
    CheckResult

    Raises
    ------
    XaikitError
        If an attention module does not make exactly one attention call.
    """
    chosen = range(tower.info.layers) if layers is None else layers
    pixels = noise(tower) if pixels is None else pixels
    errors: dict[int, float] = {}
    with torch.inference_mode():
        untouched = tower.encode(pixels)
        captured: dict[int, Tensor] = {}
        taps = {layer: _keep_logits(captured, layer) for layer in chosen}
        with _recomputing(tower, captured, errors, chosen), tapping(tower, attention=taps):
            watched = tower.encode(pixels)
        with ExitStack() as stack:
            for layer in chosen:
                stack.enter_context(editing(tower, layer, lambda _call, logits: logits))
            edited = tower.encode(pixels)
    return CheckResult(
        model=tower.info.model,
        errors=errors,
        tolerance=TOLERANCE[tower.precision],
        bit_identical=torch.equal(untouched, watched),
        edit_error=_difference(untouched, edited),
    )


def require_check(tower: Tower, **options: Any) -> CheckResult:
    """Run `self_check` and refuse a tower that fails it.

    Raises
    ------
    XaikitError
        One line that names the model and the error.
    """
    result = self_check(tower, **options)
    if not result.passed:
        raise XaikitError(f"{result.describe()}; xaikit does not read this model")
    return result


def believe(tower: Tower) -> dict[str, Any]:
    """Check a tower before its first trace is believed; refuse one that fails.

    All layers are checked on one image of noise, which takes less than two plain passes of two
    images. A tower is checked once: a second call returns what the first found.

    Returns
    -------
    dict
        To record with the trace: `passed`, `attention_error` and `edit_error` (largest
        differences as shares of their scale, to the power of ten above), `tolerance`, `layers`
        checked, `precision`, `device` and the version of torch.

    Raises
    ------
    XaikitError
        One line that names the model and the error.
    """
    if tower.checked is None:
        result = require_check(tower)
        tower.checked = {
            "passed": result.passed,
            "attention_error": _decade(max(result.errors.values())),
            "edit_error": _decade(result.edit_error),
            "tolerance": result.tolerance,
            "layers": len(result.errors),
            "precision": tower.precision,
            "device": tower.device.type,
            "torch": torch.__version__,
        }
    return dict(tower.checked)


def _decade(error: float) -> float:
    # The last bits depend on the number of threads, which must not change what is written.
    return float(f"1e{math.ceil(math.log10(error))}") if error > 0 else 0.0


def noise(tower: Tower, batch: int = 1, seed: int = 0) -> Float[Tensor, "batch 3 height width"]:
    """Seeded normal pixels ``[B, 3, height, width]`` of the size that a tower takes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *tower.info.image_size, generator=generator)


def _keep_logits(captured: dict[int, Tensor], layer: int) -> Any:
    def tap(call: AttentionCall) -> None:
        captured[layer] = call.logits()

    return tap


@contextmanager
def _recomputing(
    tower: Tower, captured: dict[int, Tensor], errors: dict[int, float], layers: Sequence[int]
) -> Iterator[None]:
    hooks = []
    for layer in layers:
        tower.check_layer(layer)

        def after(module: nn.Module, args: Any, kwargs: Any, out: Any, layer: int = layer) -> None:
            again = _recomputed(tower, layer, captured.pop(layer), args, kwargs)
            errors[layer] = _difference(_tensor(out), _tensor(again))

        attention = tower.blocks[layer].attention
        hooks.append(attention.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _recomputed(tower: Tower, layer: int, logits: Tensor, args: Any, kwargs: Any) -> Any:
    module = tower.blocks[layer].attention

    def replace(call: AttentionCall) -> None:
        call.edited = logits

    # The class's forward, not the instance's: the latter is being tapped, and has fired already.
    scoped = module.__dict__.pop("forward", None)
    try:
        with intercepting(module, replace, f"{tower.info.model} layer {layer}"):
            return module.forward(*args, **kwargs)
    finally:
        if scoped is not None:
            module.__dict__["forward"] = scoped


def _difference(own: Tensor, other: Tensor) -> float:
    difference, scale = (own.float() - other.float()).abs().max(), own.float().abs().max()
    # A module that returns zeros, as freshly initialised adapters may, has no scale.
    return float(difference / scale) if scale else float(difference)


def _tensor(out: Any) -> Tensor:
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found
