"""The shape of a planted tower: where each signal lives in its residual stream, how wide it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from xaikit.testing.planted_spec import IMAGE_RANK, NOISE_RANK, POSITION_RANK, PlantedSpec

FFN_RATIO = 2.0


@dataclass(frozen=True)
class Residual:
    """Where each signal lives in the first half of the residual stream."""

    constant: slice
    sink: slice
    content: slice
    group: slice
    position: slice
    noise: slice
    image: slice
    mass: slice
    output: slice
    scratch: slice

    @property
    def half(self) -> int:
        """Number of signal dimensions."""
        return int(self.scratch.stop)


def residual_layout(spec: PlantedSpec) -> Residual:
    """Give each signal its dimensions."""
    edges, kinds = len(spec.edges) + len(spec.relays), spec.groups + 1
    sizes = (1, 1, kinds, kinds, spec.tokens, NOISE_RANK, IMAGE_RANK, edges, edges, 1)
    stops = accumulate(sizes, initial=0)
    return Residual(*(slice(start, stop) for start, stop in pairwise(stops)))


def head_width(spec: PlantedSpec) -> int:
    """Smallest multiple of four that holds the residual stream and the busiest head."""
    per_head = [
        sum(edge.head == head for edge in layer)
        for layer in (spec.edges, spec.relays)
        for head in range(spec.heads)
    ]
    busiest = max(per_head) + POSITION_RANK + NOISE_RANK + IMAGE_RANK + 1
    room = max(busiest, math.ceil(2 * residual_layout(spec).half / spec.heads))
    return 4 * math.ceil(room / 4)


def model_config(spec: PlantedSpec) -> dict[str, Any]:
    """OpenCLIP's model config: the tower, and a minute text tower that OpenCLIP insists on."""
    width = head_width(spec)
    return {
        "embed_dim": 1 + spec.groups + len(spec.ends),
        "vision_cfg": {
            "image_size": spec.image_size,
            "patch_size": spec.patch,
            "layers": spec.layers,
            "width": width * spec.heads,
            "head_width": width,
            "mlp_ratio": FFN_RATIO,
            "no_ln_pre": True,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 8,
            "heads": 1,
            "layers": 1,
        },
    }
