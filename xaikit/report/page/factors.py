"""The demo's scenes say what is in them: which known factor each cluster goes with best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.images.drawing import SHAPES, TEXTURES
from xaikit.images.scenes import COLOURS, QUADRANTS, Factors, SceneSource, factors_of
from xaikit.report.page.names import Halves, correlations, counted
from xaikit.report.page.parts import LayerParts
from xaikit.report.page.pictures import Pictures

if TYPE_CHECKING:
    from jaxtyping import Bool


def known_factors(parts: LayerParts, pictures: Pictures) -> list[dict[str, Any] | None] | None:
    """Each cluster's best factor over images, and over patches; None for other images, or one.

    Over images it is the correlation of the cluster's tokens with the factor's presence, the
    figure that words are chosen by; over patches the F1 of the cluster with the factor. Both are
    chosen on discovery images and checked on the others.
    """
    source = pictures.source
    if not isinstance(source, SceneSource):
        return None
    halves = Halves.of(parts)
    choose, check = (_known(pictures, each) for each in (halves.choose, halves.check))
    if not (choose and check):
        return None
    names, present, patches = _facts(source.seed, list(choose.values()))
    _, present_check, patches_check = _facts(source.seed, list(check.values()))
    rows, rows_check = _patches(parts, list(choose)), _patches(parts, list(check))
    chosen = correlations(counted(parts, list(choose)), present.astype(np.float64))
    checked = correlations(counted(parts, list(check)), present_check.astype(np.float64))
    found: list[dict[str, Any] | None] = []
    for cluster in range(parts.features.num_clusters):
        if not np.isfinite(chosen[cluster]).any():
            found.append(None)
            continue
        best = int(np.nan_to_num(chosen[cluster], nan=-2.0).argmax())
        overlap = [_f1(rows == cluster, patches[..., at]) for at in range(len(names))]
        top = int(np.argmax(overlap))
        found.append(
            {
                "name": names[best],
                "discovery": float(chosen[cluster, best]),
                "heldout": float(np.nan_to_num(checked[cluster, best])),
                "patch": names[top],
                "f1": overlap[top],
                "f1_heldout": _f1(rows_check == cluster, patches_check[..., top]),
            }
        )
    return found


def _patches(parts: LayerParts, images: list[int]) -> np.ndarray:
    return parts.features.labels[images].numpy()[:, parts.fit.prefix_tokens :]


def _known(pictures: Pictures, images: list[int]) -> dict[int, int]:
    """The scene that each image is, of those that the source still has."""
    found = {image: pictures.place(image) for image in images}
    return {image: scene for image, scene in found.items() if scene is not None}


def _facts(
    seed: int, scenes: list[int]
) -> tuple[list[str], Bool[np.ndarray, "image factor"], Bool[np.ndarray, "image patch factor"]]:
    """Names of all factor values, which images have them, and which patches."""
    facts: Factors = factors_of(seed, scenes)
    groups = (
        (COLOURS, facts.patch_colour, facts.colour),
        (SHAPES, facts.patch_shape, facts.shape),
        (TEXTURES, facts.patch_texture, facts.texture[:, None]),
        (QUADRANTS, facts.patch_quadrant, facts.quadrant),
    )
    names: list[str] = []
    present, patches = [], []
    for values, by_patch, by_scene in groups:
        for at, value in enumerate(values):
            names.append(value)
            present.append((by_scene == at).any(1))
            patches.append(by_patch == at)
    return names, np.stack(present, -1), np.stack(patches, -1)


def _f1(one: np.ndarray, other: np.ndarray) -> float:
    both = float((one & other).sum())
    return 2 * both / max(float(one.sum() + other.sum()), 1.0)
