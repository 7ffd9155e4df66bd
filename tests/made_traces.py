"""Traces written in batches, for the tests of the writer and of the reader."""

from __future__ import annotations

import torch

from xaikit.artifacts.candidates import Candidates
from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.trace import TraceInfo
from xaikit.artifacts.trace_writer import writing

TOKENS, HEADS, WIDTH, GATES = 4, 2, 3, 11


def blank_info(layer=2, weights="w" * 16, width=WIDTH):
    origin = Origin(
        model="made-up", pretrained="tag", weights_fingerprint=weights, images_fingerprint=""
    )
    return TraceInfo(
        provenance=Provenance(
            origin=origin, layer=layer, next_layer=layer + 1, options={"precision": "float32"}
        ),
        images=[],
        groups=None,
        tokens=TOKENS,
        heads=HEADS,
        prefix_kinds=["class token"],
        width=width,
        ffn_width=GATES,
        grid=[1, 3],
        source={"kind": "made up"},
    )


def made_tensors(images, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(images, *shape, generator=generator)

    return {
        "h_l": normal(TOKENS, WIDTH),
        "attn_logits_l1": normal(HEADS, TOKENS, TOKENS),
        "residual_norms_l1": normal(TOKENS).abs(),
        "ffn_gate_l": (normal(TOKENS, GATES) > 0).to(torch.uint8),
    }


def ids_of(images):
    return [f"folder/{i:03d}.png" for i in range(images)]


class MadeImages:
    """A source of made-up names."""

    def __init__(self, count):
        self.ids, self.groups = ids_of(count), [f"group-{i % 2}" for i in range(count)]


def candidates_of(count, contents=None):
    """Images of made-up names; `contents` says which of them are not what they are elsewhere."""
    source = MadeImages(count)
    known = contents or {}
    return Candidates(
        names=source,
        content=lambda used: fingerprint([[source.ids[i], known.get(i, "")] for i in used]),
        own=range(count),
    )


def write(path, tensors, *, storage=None, batch=2, capacity=None, stop=None, **options):
    """Write the images of `tensors` from the writer's cursor on, in batches."""
    count = len(tensors["h_l"])
    skipped = options.pop("skipped", {})
    info = options.pop("info", None) or blank_info()
    candidates = candidates_of(capacity or count, options.pop("contents", None))
    with writing(path, info, storage or Storage(), candidates, **options) as writer:
        for at in range(writer.cursor, count, batch):
            if stop is not None and at >= stop:
                raise KeyboardInterrupt
            every = range(at, min(at + batch, count))
            part = [i for i in every if i not in skipped]
            lost = [(i, "no image") for i in every if i in skipped]
            if part:
                taken = {name: tensor[part] for name, tensor in tensors.items()}
                writer.add(part, taken, lost)
            else:
                writer.skipped += lost
        return writer.finish()
