"""Models with few of their blocks, at their real width and tokens, for checking what is read."""

from __future__ import annotations

from typing import Any

import torch
from timm.models._manipulate import reinit_non_persistent_buffers
from torch import nn

from xaikit.towers.building import build_module, on_meta
from xaikit.towers.registry import require_supported, resolve
from xaikit.towers.tower import Tower, wrap_tower


def build_for_check(model: str, *, layers: int = 2, seed: int = 0) -> Tower:
    """Build a model with few of its blocks and random weights, at its real width and tokens.

    Parameters
    ----------
    model : str
        As in `load_tower`.
    layers : int
        Blocks to keep.
    seed : int
        Of the weights.

    Returns
    -------
    Tower
        Blocks, attention and FFNs as in the full model. Its logits spread by about 2, so that a
        check on them can fail.
    """
    spec = resolve(model)
    require_supported(spec)
    with on_meta():
        module = build_module(spec)
    core: Any = getattr(module, "trunk", module)
    holder, name = (core, "blocks") if hasattr(core, "blocks") else (core.transformer, "resblocks")
    setattr(holder, name, getattr(holder, name)[:layers])
    module = module.to_empty(device="cpu")
    _fill(module, seed)
    return wrap_tower(module, model=spec.name, family=spec.family, pretrained="random")


def _fill(module: nn.Module, seed: int) -> None:
    """Give every parameter and buffer of a module without content a sane value."""
    # Copies of one random pool: drawing billions of normals would take minutes.
    pool = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed))
    for index, (name, parameter) in enumerate(module.named_parameters()):
        shape = parameter.shape
        if parameter.ndim < 2:
            # Norm weights, layer scales and biases: around 1 and around 0.
            centre, spread = (0.0, 0.1) if "bias" in name.rpartition(".")[2] else (1.0, 0.1)
        else:
            centre, spread = 0.0, 1.5 * shape[1:].numel() ** -0.5
        flat = parameter.data.view(-1)
        offset = (index * 7919) % (len(pool) // 2)
        for start in range(0, len(flat), len(pool) // 2):
            piece = flat[start : start + len(pool) // 2]
            piece.copy_(pool[offset : offset + len(piece)])
        flat.mul_(spread).add_(centre)
    part: Any
    for part in module.modules():
        if hasattr(part, "reset_running_stats"):
            part.reset_running_stats()
    reinit_non_persistent_buffers(module)
