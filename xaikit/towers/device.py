"""Which device a model runs on."""

from __future__ import annotations

import torch
from torch import nn

from xaikit.distributed import local_device
from xaikit.errors import UsageError

AUTO = "auto"


def pick_device(name: str = AUTO) -> torch.device:
    """Find a device by name.

    Parameters
    ----------
    name : str
        A torch device; ``auto`` is CUDA, then MPS, then the CPU. Under torchrun ``auto`` and
        ``cuda`` give each process the GPU of its local rank.

    Raises
    ------
    UsageError
        If the device cannot be used.
    """
    name = local_device(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used: {reason}") from None
    return device


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module, in place; MPS has no float64, so what is in it becomes float32 there."""
    if device.type == "mps":
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                if buffer.dtype == torch.float64:
                    setattr(part, name, buffer.float())
            for parameter in part.parameters(recurse=False):
                if parameter.dtype == torch.float64:
                    parameter.data = parameter.data.float()
    module.to(device)
