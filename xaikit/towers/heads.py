"""Heads of another size, or none: a tower gets the head that the file has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def fit_head(module: Any, state: State, notes: list[str]) -> State:
    """Make the module's head the file's, and say so.

    Parameters
    ----------
    module : nn.Module
        A timm model gets a classifier of the file's size, or none. A CLIP tower gets a projection
        of the file's size, or none: its embedding is then what would be projected.
    state : dict of Tensor
        Under the module's names.
    notes : list of str
        Receives a line where something was changed.
    """
    if hasattr(module, "reset_classifier"):
        _fit_classifier(module, state, notes)
    elif hasattr(module, "trunk"):
        _fit_trunk_projection(module, state, notes)
    elif isinstance(getattr(module, "proj", None), Tensor):
        _fit_projection(module, state, notes)
    return state


def _fit_classifier(module: Any, state: State, notes: list[str]) -> None:
    name = (getattr(module, "pretrained_cfg", None) or {}).get("classifier", "head")
    name = name[0] if isinstance(name, (tuple, list)) else name
    weight, classes = state.get(f"{name}.weight"), int(module.num_classes)
    if weight is None:
        if classes and not any(key.startswith(f"{name}.") for key in state):
            _reset(module, 0)
            notes.append(f"no classifier head, in place of one of {classes} classes")
        return
    if weight.ndim != 2 or weight.shape[0] == classes or weight.shape[1] != module.num_features:
        return
    _reset(module, weight.shape[0])
    notes.append(f"classifier head of {weight.shape[0]} classes, in place of {classes or 'none'}")


def _reset(module: Any, classes: int) -> None:
    with torch.random.fork_rng(devices=[]):
        module.reset_classifier(classes)


def _fit_trunk_projection(module: Any, state: State, notes: list[str]) -> None:
    own = module.state_dict()
    if any(key.startswith("head.") for key in own) and not any(
        key.startswith("head.") for key in state
    ):
        module.head = nn.Sequential()
        notes.append("no projection: the embedding is what the transformer pools")


def _fit_projection(module: Any, state: State, notes: list[str]) -> None:
    if "proj" not in state:
        # A file without a projection still has the norm before it; any other file is incomplete.
        if "ln_post.weight" in state:
            module.proj = None
            notes.append("no projection: the embedding is what the transformer pools")
        return
    wanted, found = module.proj, state["proj"]
    if found.ndim == 2 and found.shape[0] == wanted.shape[0] != 0 and found.shape != wanted.shape:
        module.proj = nn.Parameter(torch.empty(found.shape))
        module.output_dim = found.shape[1]
        notes.append(f"projection to {found.shape[1]} dimensions, in place of {wanted.shape[1]}")
