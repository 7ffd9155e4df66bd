"""Do tower, images and artefacts belong together?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xaikit.errors import UsageError
from xaikit.interventions.edits import derangement
from xaikit.towers import Tower

if TYPE_CHECKING:
    from xaikit.artifacts.tensors import Fit
    from xaikit.images import ImageSource


def check_tower(tower: Tower, fit: Fit) -> None:
    """Refuse a tower that is not the one behind the fit.

    Raises
    ------
    UsageError
        Naming both.
    """
    origin = fit.provenance.origin
    if origin.weights_fingerprint != tower.weights_fingerprint:
        raise UsageError(
            f"the fit is of {origin.model} with weights {origin.weights_fingerprint}, the model is "
            f"{tower.info.model} with weights {tower.weights_fingerprint}: pass the --model and "
            "--pretrained of the trace"
        )


def find_images(
    source: ImageSource, ids: Sequence[str], images: Sequence[int], rows: int
) -> list[int]:
    """Positions in the source of the images to run, found by id."""
    if len(ids) != rows:
        raise UsageError(f"{len(ids)} image ids for the labels of {rows} images")
    places = {name: place for place, name in enumerate(source.ids)}
    missing = [ids[image] for image in images if ids[image] not in places]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(images)} images of the trace are not among the given images, "
            f"the first is {missing[0]}: pass the images that were traced"
        )
    return [places[ids[image]] for image in images]


def even_batches(images: int, wanted: int, ablation: str) -> int:
    """The batch size next to `wanted` that leaves no image alone, where one needs a partner."""
    if not images:
        raise UsageError("no images to intervene on")
    if ablation != "resample":
        return wanted
    derangement(min(images, 2), [0])
    sizes = [*range(min(wanted, images), 1, -1), *range(max(wanted, 2), images + 1)]
    return next(size for size in sizes if images % size != 1)


def spread_evenly(images: Sequence[int], most: int | None) -> list[int]:
    """At most `most` of the images, evenly spaced, so that sorted folders are all seen."""
    ordered = sorted(images)
    if most is None or len(ordered) <= most:
        return ordered
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places]
