"""One hash for the weights of a tower."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from xaikit.towers.unwrapping import without_wrappers


def fingerprint(state: Mapping[str, Tensor], *extra: str) -> str:
    """Hash names, shapes, formats and bytes of a state dict, in key order.

    Names that only a compiled or data-parallel module has are left out, so that wrapping a
    module leaves its fingerprint alone.

    Parameters
    ----------
    state : mapping of str to Tensor
    *extra : str
        Whatever else decides what the weights compute, such as an activation.

    Returns
    -------
    str
        32 hexadecimal digits of the SHA-256.
    """
    digest = hashlib.sha256()
    for text in extra:
        digest.update(f"{text}\n".encode())
    state, _ = without_wrappers(state)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
