"""A model's attention on one image: every layer and head, small enough for a page."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.towers.capture import tapping

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.towers import AttentionCall, Tower

MOST_BYTES = 16_000_000
"""Of all attention in a page, before it is written as text."""
LEAST_SHOWN = (0.0, 1e-4, 1e-3, 1e-2, 3e-2)
"""Of a row's largest: what is smaller is drawn as none where a page would be too large."""
CLASSES = 5


@dataclass(frozen=True)
class Attended:
    """What a model computed of one image.

    Attributes
    ----------
    attention : Float[np.ndarray, "layer head query key"]
        Rows add up to 1.
    classes : list of (int, float)
        The most probable classes of the model's own head; empty without one.
    """

    attention: Float[np.ndarray, "layer head query key"]
    classes: list[tuple[int, float]]


def attended(tower: Tower, pixels: Float[Tensor, "1 3 height width"]) -> Attended:
    """Run the model once and read the attention of every layer."""
    found: dict[int, np.ndarray] = {}

    def tap(layer: int) -> Any:
        def keep(call: AttentionCall) -> None:
            found[layer] = call.logits()[0].softmax(-1).cpu().numpy()

        return keep

    layers = range(tower.info.layers)
    with torch.inference_mode(), tapping(tower, attention={at: tap(at) for at in layers}):
        logits = tower.outputs(pixels).class_logits
    classes = []
    if logits is not None:
        best = logits[0].softmax(-1).topk(min(CLASSES, logits.shape[1]))
        classes = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Attended(np.stack([found[at] for at in layers]), classes)


def packed_attention(
    attention: Float[np.ndarray, "layer head query key"],
    prefix: int,
    most_bytes: int = MOST_BYTES,
) -> tuple[list[dict[str, str]], float]:
    """Each layer's rows in bytes, deflated; prefix tokens, which often take most, stand apart.

    A byte is the square root of the attention over the row's largest to a patch, times 255:
    what is small keeps its order, and no value is off by more than .4 % of the row's largest.

    Parameters
    ----------
    attention : float
    prefix : int
        Tokens before the patches.
    most_bytes : int

    Returns
    -------
    list of dict
        ``rows``, the bytes ``[head, query, patch]``; ``tops``, the rows' largest to a patch
        ``[head, query]``, and ``prefix`` ``[head, query, prefix]``, both float32; all in base64.
    float
        Share of a row's largest below which attention is written as none; 0 where all is kept.
    """
    patches = attention[..., prefix:]
    tops = patches.max(-1)
    parts = patches / np.maximum(tops, 1e-30)[..., None]
    layers: list[bytes] = []
    for least in LEAST_SHOWN:
        layers = [_deflated(layer, least) for layer in parts]
        if sum(map(len, layers)) <= most_bytes:
            break
    packed = [
        {"rows": _text(rows), "tops": _floats(top), "prefix": _floats(before)}
        for rows, top, before in zip(layers, tops, attention[..., :prefix], strict=True)
    ]
    return packed, least


def _deflated(parts: Float[np.ndarray, "head query patch"], least: float) -> bytes:
    kept = np.where(parts >= least, parts, 0.0)
    return zlib.compress(np.round(np.sqrt(kept) * 255).astype(np.uint8).tobytes(), 6)


def _floats(values: Float[np.ndarray, "..."]) -> str:
    return _text(values.astype("<f4").tobytes())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def head_figures(
    attention: Float[np.ndarray, "layer head query key"], prefix: int, grid: tuple[int, int]
) -> list[dict[str, Any]]:
    """What each head does, over the patches' queries.

    Returns
    -------
    list of dict
        ``layer``, ``head``, ``prefix`` (mean share on prefix tokens), ``itself`` (mean share on
        the query's own patch), ``tokens`` (the exponential of the mean entropy: over how many
        tokens attention spreads) and ``distance`` (in patches, to where the attention on patches
        goes).
    """
    rows = attention[:, :, prefix:].astype(np.float64)
    patches = rows[..., prefix:]
    on_prefix = rows[..., :prefix].sum(-1).mean(-1)
    itself = np.diagonal(patches, axis1=-2, axis2=-1).mean(-1)
    logs = np.log(rows, where=rows > 0, out=np.zeros_like(rows))
    spread = np.exp(-(rows * logs).sum(-1).mean(-1))
    at = np.stack(np.divmod(np.arange(grid[0] * grid[1]), grid[1]), -1)
    far = np.sqrt(((at[:, None] - at[None]) ** 2).sum(-1))
    distance = (patches * far).sum((-2, -1)) / np.maximum(patches.sum((-2, -1)), 1e-12)
    return [
        {
            "layer": layer,
            "head": head,
            "prefix": float(on_prefix[layer, head]),
            "itself": float(itself[layer, head]),
            "tokens": float(spread[layer, head]),
            "distance": float(distance[layer, head]),
        }
        for layer in range(attention.shape[0])
        for head in range(attention.shape[1])
    ]
