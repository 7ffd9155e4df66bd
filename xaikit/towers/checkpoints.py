"""Weights on disk: reading them without unpickling, and loading a vision tower strictly."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xaikit.errors import UsageError, XaikitError

State = dict[str, Tensor]


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes, formats and bytes of a state dict, in key order.

    Returns
    -------
    str
        32 hexadecimal digits of the SHA-256.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def read_checkpoint(path: Path) -> State:
    """Read a ``.safetensors`` file or a torch checkpoint of plain tensors.

    Raises
    ------
    UsageError
        If the file is missing, unreadable, or could only be read by unpickling it.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"checkpoint {path} is no readable safetensors file: {error}"
            ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise UsageError(
            f"checkpoint {path} cannot be read as plain tensors (torch.load, weights_only), and "
            "xaikit never unpickles; save its state dict as .safetensors"
        ) from None
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> State:
    while isinstance(content, Mapping):
        nested = [
            content[key]
            for key in ("state_dict", "model_state_dict", "model")
            if isinstance(content.get(key), Mapping)
        ]
        if not nested:
            break
        content = nested[0]
    state = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        raise UsageError(f"checkpoint {path} holds no state dict of tensors")
    return without_wrappers(state)


def without_wrappers(state: State) -> State:
    """Drop the prefixes that DistributedDataParallel and torch.compile put on every name."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_vision_state(module: nn.Module, state: State, source: str) -> None:
    """Load a vision tower from a full CLIP, a vision-only or a timm state dict, strictly.

    Parameters
    ----------
    module : nn.Module
        The vision module.
    state : dict of Tensor
        Names as `open_clip` (with or without ``visual.``) or timm write them.
    source : str
        Where the weights come from, for the message.

    Raises
    ------
    XaikitError
        If names or shapes differ; the message names the first few.
    """
    wanted = module.state_dict()
    state = without_wrappers(state)
    found = _matching(module, state, set(wanted))
    problems = _problems(wanted, found)
    if problems:
        raise XaikitError(f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(found, strict=True)


def _matching(module: Any, state: State, wanted: set[str]) -> State:
    state = _converted(module, state)
    visual = _stripped(state, "visual.")
    candidates = [visual or state]
    if visual:
        candidates.append(_stripped(visual, "trunk."))
    else:
        candidates.append({f"trunk.{name}": value for name, value in state.items()})
    for candidate in candidates:
        if set(candidate) == wanted:
            return candidate
    # timm keeps a filter beside each model that renames the original authors' checkpoints.
    rename = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if rename is not None:
        try:
            renamed = rename(dict(candidates[0]), module)
        except Exception:
            return candidates[0]
        if set(renamed) == wanted:
            return renamed
    return candidates[0]


def _stripped(state: State, prefix: str) -> State:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _converted(module: Any, state: State) -> State:
    image = _stripped(state, "image_encoder.model.")
    if "patch_emb.0.block.conv.weight" not in image or not hasattr(module, "trunk"):
        return state
    # Apple's own MobileCLIP-B files; open_clip converts them with the same filter.
    from timm.models.vision_transformer_hybrid import checkpoint_filter_fn

    trunk = checkpoint_filter_fn(state, module.trunk)
    return {f"visual.trunk.{name}": value for name, value in trunk.items()}


def _problems(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} {list(found[name].shape)} (expected {list(wanted[name].shape)})"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "wrong shape": shapes,
    }
    return [_first(kind, names) for kind, names in kinds.items() if names]


def _first(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind} {', '.join(names[:3])}{more}"
