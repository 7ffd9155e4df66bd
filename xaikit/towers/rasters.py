"""Position embeddings of another raster, interpolated as the library they come from does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from open_clip.model import resize_pos_embed
from torch import Tensor
from torch.nn import functional as F

from xaikit.towers.hf_names import Renamed
from xaikit.towers.unwrapping import State


def as_transformers_does(module: Any, renamed: Renamed) -> State:
    """DINOv2's position embeddings for another raster, which transformers makes as it runs."""
    own, theirs = getattr(module, "pos_embed", None), renamed.state.get("pos_embed")
    if not renamed.kind.startswith("Dinov2") or own is None or theirs is None:
        return {}
    grid, before = module.patch_embed.grid_size, math.isqrt(theirs.shape[1])
    prefix = theirs.shape[1] - before**2
    if own.shape == theirs.shape or own.shape[1] != math.prod(grid) + prefix:
        return {}
    raster = theirs[:, prefix:].float().unflatten(1, (before, before)).permute(0, 3, 1, 2)
    raster = F.interpolate(raster, size=grid, mode="bicubic", align_corners=False)
    new = raster.permute(0, 2, 3, 1).flatten(1, 2)
    return {"pos_embed": torch.cat([theirs[:, :prefix].float(), new], dim=1)}


def resized(
    module: Any, given: State, grids: Mapping[str, int], resized_by: str, notes: list[str]
) -> State:
    """Interpolate open_clip's position embedding; say it, also where a reader has done it.

    Parameters
    ----------
    grids : mapping of str to int
        What `grids_of` found before anything was interpolated.
    resized_by : str
        Whose interpolation it went through, where it is not open_clip's.
    notes : list of str
        Where it is said.
    """
    state = dict(given)
    name = "positional_embedding"
    wanted = getattr(module, name, None)
    if name in state and isinstance(wanted, Tensor) and state[name].shape != wanted.shape:
        patches = state[name].shape[0] - 1
        if state[name].ndim == 2 and round(patches**0.5) ** 2 == patches > 0:
            holder = {f"visual.{name}": state[name].float()}
            resize_pos_embed(holder, SimpleNamespace(visual=module))
            state[name] = holder[f"visual.{name}"]
    for what, before in grids.items():
        after = grids_of(state).get(what, before)
        if before != after:
            by = "open_clip" if isinstance(wanted, Tensor) else resized_by
            notes.append(
                f"{what} of {before} × {before} interpolated to {after} × {after}, as {by} does"
            )
    return state


def grids_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Side of the raster that a state's position embeddings are for, and of a patch."""
    grids: dict[str, int] = {}
    # A whole CLIP also has positions of its text, without ``visual.``.
    for name in sorted(state, key=lambda name: "visual" not in name):
        last, value = name.rpartition(".")[2], state[name]
        if last in ("pos_embed", "positional_embedding") and value.ndim >= 2:
            grids.setdefault("position embeddings", math.isqrt(value.shape[-2]))
        elif name.endswith(("conv1.weight", "patch_embed.proj.weight")) and value.ndim == 4:
            grids.setdefault("patch embeddings", value.shape[-1])
    return grids
