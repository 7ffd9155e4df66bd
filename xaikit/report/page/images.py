"""The few images that the page shows whole: their clusters, and their real attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import Pictures, data_uri, packed, packed_labels

SHOWN = 8
LOGIT_BYTES = 3_000_000
"""Most bytes of real logits in a page, before they are written as text."""
MEAN_BYTES = 1_500_000


def shown_images(run: RunParts, pictures: Pictures) -> list[int]:
    """Images shown whole: of those that tests run on, evenly spread."""
    tested = run.layers[0].features.test_images or list(range(len(run.layers[0].features.labels)))
    spread = np.unique(np.linspace(0, len(tested) - 1, min(len(tested), SHOWN)).astype(int))
    wanted = [tested[at] for at in spread]
    return pictures.available(wanted, SHOWN) or wanted


def image_records(run: RunParts, pictures: Pictures) -> list[dict[str, Any]]:
    """Name, pixels, and whether clusters were learnt without each of the images shown."""
    heldout = set(run.layers[0].features.heldout)
    found = []
    for image in shown_images(run, pictures):
        frame = pictures.framed(image)
        found.append(
            {
                "index": image,
                "name": pictures.name(image),
                "heldout": image in heldout,
                "src": data_uri(frame) if frame is not None else None,
                "size": [frame.width, frame.height] if frame is not None else None,
            }
        )
    return found


def add_images(run: RunParts, records: list[dict[str, Any]], layers: list[dict[str, Any]]) -> None:
    """Give each layer's record the labels of the images, and the logits that there is room for."""
    images = [record["index"] for record in records]
    each = sum(_entries(parts) for parts in run.layers)
    with_logits = min(len(images), max(1, LOGIT_BYTES // max(each, 1)))
    for parts, layer in zip(run.layers, layers, strict=True):
        layer["labels"] = packed_labels(parts.features.labels[images].numpy())
        layer["logits"] = _logits(parts, images[:with_logits])
        layer["positionMean"] = None
        mean = parts.fit.position_mean.numpy()
        if mean.size and each <= MEAN_BYTES:
            layer["positionMean"] = [packed(head) for head in mean]


def _entries(parts: LayerParts) -> int:
    return int(parts.fit.prototypes.shape[1]) * parts.fit.tokens**2


def _logits(parts: LayerParts, images: list[int]) -> list[list[dict[str, Any]]] | None:
    """Real logits of some images, one packed ``[N, N]`` a head; None without a trace."""
    if parts.trace is None:
        return None
    found = []
    for image in images:
        heads = parts.trace.logits(image, image + 1)[0].numpy()
        found.append([packed(head) for head in heads])
    return found
