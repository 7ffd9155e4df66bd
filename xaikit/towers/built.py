"""Modules that are already built: what is inside their wrappers, and which family it is of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from xaikit.errors import UsageError

_HOLDERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
TAKES = (
    "xaikit takes an open_clip model or its visual, or a timm vision transformer, each also "
    "wrapped by DataParallel, torch.compile or peft"
)


def unwrapped(module: Any) -> Any:
    """The module inside data-parallel, averaging, compiled and peft wrappers, in any nesting."""
    while True:
        if isinstance(module, _HOLDERS):
            module = module.module
        elif isinstance(getattr(module, "_fsdp_wrapped_module", None), nn.Module):
            module = module._fsdp_wrapped_module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod
        elif hasattr(module, "peft_config") and hasattr(module, "get_base_model"):
            module = module.get_base_model()
        else:
            return module


def vision_of(module: Any) -> tuple[Any, str]:
    """The vision module inside what was given, and its family.

    Returns
    -------
    module : nn.Module
    family : str
        ``open_clip`` or ``timm``.

    Raises
    ------
    UsageError
        One line that says what to pass.
    """
    inner = unwrapped(module)
    if isinstance(getattr(inner, "visual", None), nn.Module):
        inner = unwrapped(inner.visual)
    kind = type(inner)
    if isinstance(inner, torch.jit.ScriptModule):
        raise UsageError(
            f"a TorchScript module ({kind.__name__}) has no parts to read: pass its file as "
            "pretrained, with the name of the model"
        )
    if kind.__module__.partition(".")[0] == "clip":
        raise UsageError(
            f"{kind.__name__} of OpenAI's package keeps images in the second place, which is not "
            "read: pass its name and weights, such as 'ViT-B-32' and 'openai' or its file"
        )
    if kind.__module__.startswith("transformers."):
        raise UsageError(
            f"{kind.__name__} of transformers is not read as a module: save it "
            "(model.save_pretrained(FOLDER)) and pass 'local-dir:FOLDER'"
        )
    if hasattr(inner, "trunk") or hasattr(inner, "transformer"):
        return inner, "open_clip"
    if hasattr(inner, "forward_features") and hasattr(inner, "forward_head"):
        return inner, "timm"
    if not isinstance(inner, nn.Module):
        raise UsageError(f"{kind.__name__} is no torch module: {TAKES}")
    raise UsageError(f"{kind.__name__} is of no family that is known: {TAKES}")


def compiled(module: nn.Module) -> bool:
    """Whether any part of a module was compiled, in place or by wrapping."""
    return any(
        getattr(part, "_compiled_call_impl", None) is not None
        or isinstance(getattr(part, "_orig_mod", None), nn.Module)
        for part in module.modules()
    )


def running_eagerly(needed: bool) -> AbstractContextManager[Any]:
    """Run compiled parts as plain Python, where hooks and edits reach them."""
    return torch.compiler.set_stance("force_eager") if needed else nullcontext()
