"""Replacing the activation or the norms' epsilon of a module that was just built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from open_clip.transformer import QuickGELU
from timm.layers import GELUTanh
from timm.layers import QuickGELU as TimmQuickGELU
from torch import nn

_NAMES: dict[type[nn.Module], str] = {
    QuickGELU: "quick_gelu",
    TimmQuickGELU: "quick_gelu",
    GELUTanh: "gelu_tanh",
}
_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "quick_gelu": QuickGELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}


def activation_of(module: nn.Module) -> str | None:
    """Name of an activation module, as settings have it; None for others than kinds of GELU."""
    if type(module) in _NAMES:
        return _NAMES[type(module)]
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "gelu" if type(module).__name__ == "GELU" else None


def set_activation(module: nn.Module, name: str) -> bool:
    """Put one kind of GELU in place of every other in the module.

    Returns
    -------
    bool
        Whether anything was replaced.
    """
    changed = False
    for parent in list(module.modules()):
        for child_name, child in parent.named_children():
            if activation_of(child) not in (None, name):
                setattr(parent, child_name, _MAKERS[name]())
                changed = True
    return changed


def set_norm_eps(module: nn.Module, eps: float) -> None:
    """Set the epsilon of every layer norm."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps
