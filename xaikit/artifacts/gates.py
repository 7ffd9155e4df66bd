"""Gates, eight a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

PACKED_GATES = "ffn_gate_l_packed"
"""Name of the packed tensor in a trace file."""


def pack_gates(gates: UInt8[Tensor, "*rows ffn"]) -> UInt8[Tensor, "*rows bytes"]:
    """Pack eight gates a byte, first gate in the highest bit."""
    return torch.from_numpy(np.packbits(gates.cpu().numpy(), axis=-1))


def unpack_gates(packed: UInt8[Tensor, "*rows bytes"], width: int) -> UInt8[Tensor, "*rows ffn"]:
    """Undo `pack_gates`."""
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1, count=width))
