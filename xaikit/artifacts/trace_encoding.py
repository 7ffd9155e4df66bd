"""How a batch is stored in a trace: number formats, and gates eight a byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.gates import PACKED_GATES, pack_gates
from xaikit.artifacts.tensorfile import narrowed
from xaikit.artifacts.trace_shards import QUERIES_KEYS

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.storage import Storage
    from xaikit.artifacts.trace_info import TraceInfo

# In the words of a message, and whether they are of the layer itself or of the next one.
_OF_A_LAYER = {
    "h_l": ("an input of the FFN", True),
    "attn_logits_l1": ("an attention logit", False),
}


def encoded(
    tensors: Mapping[str, Tensor], storage: Storage, info: TraceInfo, images: Sequence[str]
) -> dict[str, Tensor]:
    """A batch under the names and in the formats of the file.

    Parameters
    ----------
    images : sequence of str
        Ids of its images, for messages.

    Raises
    ------
    XaikitError
        Where a number does not fit the format.
    """

    def narrow(name: str) -> Tensor:
        return _narrowed(tensors[name], name, storage, info, images)

    stored = {name: narrow(name) for name in _OF_A_LAYER}
    stored["residual_norms_l1"] = tensors["residual_norms_l1"].float()
    if storage.store_qk:
        stored |= {name: narrow(name) for name in QUERIES_KEYS}
    gates = tensors["ffn_gate_l"].to(torch.uint8)
    if storage.packed_gates:
        stored[PACKED_GATES] = pack_gates(gates)
    else:
        stored["ffn_gate_l"] = gates
    return stored


def _narrowed(
    values: Tensor, name: str, storage: Storage, info: TraceInfo, images: Sequence[str]
) -> Tensor:
    """A tensor in the number format it is stored in."""
    form = "float16" if name in QUERIES_KEYS else storage.dtype
    what, own = _OF_A_LAYER.get(name, (f"an entry of the {name}", False))
    made = info.provenance
    wider = "bfloat16 or float32" if form == "float16" else "float32"
    instead = f"pass `store_dtype={wider}`"
    if name in QUERIES_KEYS:
        instead = "pass `method=kmeans`, which needs no queries and keys"
    return narrowed(
        values,
        getattr(torch, form),
        what=f"{what} of layer {made.layer if own else made.next_layer}",
        images=list(images),
        instead=instead,
    )
