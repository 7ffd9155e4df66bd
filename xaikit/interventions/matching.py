"""Do tower, images and artefacts belong together?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.artifacts.records import Provenance, require_parent
from xaikit.errors import UsageError
from xaikit.towers import Tower

if TYPE_CHECKING:
    from xaikit.artifacts.results import Circuit
    from xaikit.artifacts.tensors import Features, Fit
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
            f"{tower.info.model} with weights {tower.weights_fingerprint}: pass the `model=` and "
            "`pretrained=` of the trace"
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


def find_partners(
    source: ImageSource, names: Sequence[str], pairs: Mapping[str, str] | None
) -> list[int]:
    """Positions in the source of the images that are paired with those of some names.

    Raises
    ------
    UsageError
        Naming the first image without a partner, or the first partner that is not there.
    """
    given = pairs or {}
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(
            f"`ablation=pair`: {len(missing)} of {len(names)} images have no partner, the "
            f"first is {missing[0]}: pass `pairs=FILE` with two ids or paths a line"
        )
    places = {name: place for place, name in enumerate(source.ids)}
    wanted = [given[name] for name in names]
    unknown = [name for name in wanted if name not in places]
    if unknown:
        raise UsageError(
            f"`pairs=`: {unknown[0]} is not among the given images ({len(unknown)} of "
            f"{len(wanted)} partners are not): pass the folder that holds both"
        )
    return [places[name] for name in wanted]


def spread_evenly(images: Sequence[int], most: int | None) -> list[int]:
    """At most `most` of the images, evenly spaced, so that sorted folders are all seen."""
    ordered = sorted(images)
    if most is None or len(ordered) <= most:
        return ordered
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places]


def check_parts(parts: Sequence[tuple[Features, Fit]]) -> None:
    """Refuse layers that are not of one model, one list of images and one split of it.

    Raises
    ------
    UsageError
        Naming the layers.
    """
    if not parts:
        raise UsageError("no layers to intervene on")
    first, fit = parts[0]
    seen: dict[int, int] = {}
    for features, own in parts:
        require_parent(own, "features", features, child_name="fit")
        where = f"layers {first.layer} and {features.layer}"
        if features.provenance.origin.key() != first.provenance.origin.key():
            raise UsageError(f"{where} are not of the same model and images: run run-all again")
        if (features.discovery, features.heldout) != (first.discovery, first.heldout):
            raise UsageError(f"{where} hold out different images: cluster them with one `seed=`")
        if own.destination != fit.destination:
            raise UsageError(
                f"{where} have edges to a {fit.destination} and to a {own.destination}: fit them "
                "with one `destination=`"
            )
        if own.next_layer in seen:
            raise UsageError(
                f"layers {seen[own.next_layer]} and {features.layer} both edit the attention of "
                f"layer {own.next_layer}: take one of them"
            )
        seen[own.next_layer] = features.layer


def require_fits(circuit: Circuit, fits: Sequence[Fit]) -> None:
    """Refuse a circuit whose edges are not of these fits.

    Raises
    ------
    UsageError
        Naming the layers.
    """
    parents = circuit.provenance.parents
    if any(parents.get(name) != identity for name, identity in _as_parents(fits).items()):
        layers = ", ".join(str(fit.layer) for fit in fits)
        raise UsageError(
            f"the circuit was not made from the fit of layer {layers}: pass the circuit of these "
            "layers, or run `xaikit run-all` again"
        )


def joint_provenance(
    fits: Sequence[Fit], options: dict[str, Any], circuit: Circuit | None = None
) -> Provenance:
    """Provenance of several layers' results: the lowest one's, with all fits as parents.

    With a circuit where one was measured.
    """
    lowest = min(fits, key=lambda fit: fit.next_layer)
    parents = _as_parents(fits)
    if circuit is not None:
        parents["circuit"] = circuit.identity
    return lowest.provenance.child(options, **parents)


def _as_parents(fits: Sequence[Fit]) -> dict[str, str]:
    """Identities of fits by what a result of them calls its parents."""
    names = ["fit"] if len(fits) == 1 else [f"fit_{fit.layer}" for fit in fits]
    return {name: fit.identity for name, fit in zip(names, fits, strict=True)}
