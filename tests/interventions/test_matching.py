"""Tower, images and artefacts that belong together, and those that do not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ORIGIN
from planted_run import planted_run

from xaikit.artifacts.records import Provenance
from xaikit.errors import UsageError
from xaikit.interventions.matching import (
    check_parts,
    check_tower,
    find_images,
    find_partners,
    joint_provenance,
    require_fits,
    spread_evenly,
)


class Names:
    ids = ("c", "a", "b")


def test_images_are_found_by_id_in_the_order_wanted() -> None:
    assert find_images(Names(), ["a", "b", "c"], [2, 0], 3) == [0, 1]  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 image ids for the labels of 3 images"):
        find_images(Names(), ["a", "b"], [0], 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"1 of 2 images .* the first is z"):
        find_images(Names(), ["a", "z", "b"], [0, 1], 3)  # type: ignore[arg-type]


def test_the_tower_is_the_fits() -> None:
    run = planted_run("token", images=16)
    check_tower(run.tower, run.fit)
    origin = replace(run.fit.provenance.origin, weights_fingerprint="0" * 16)
    other = replace(run.fit, provenance=replace(run.fit.provenance, origin=origin))
    with pytest.raises(UsageError, match="with weights 0000"):
        check_tower(run.tower, other)


def test_a_circuit_is_of_the_fits_that_are_edited() -> None:
    fits: Any = [SimpleNamespace(layer=layer, identity=f"of {layer}") for layer in (1, 2)]

    def circuit(**parents: str) -> Any:
        return SimpleNamespace(provenance=SimpleNamespace(parents=parents))

    require_fits(circuit(fit="of 1"), fits[:1])
    require_fits(circuit(fit_1="of 1", fit_2="of 2"), fits)
    for other in (circuit(fit="of 1"), circuit(fit_1="of 1", fit_2="of another run")):
        with pytest.raises(UsageError, match=r"was not made from the fit of layer 1, 2"):
            require_fits(other, fits)


def test_one_layer_belongs_to_itself_and_not_to_another_split() -> None:
    run = planted_run("token", images=16)
    check_parts([(run.features, run.fit)])
    other = replace(run.features, identity="another")
    with pytest.raises(UsageError, match="was not made from this features file"):
        check_parts([(other, run.fit)])


def test_layers_of_one_run_have_one_split_and_one_list_of_images_and_edit_what_is_theirs() -> None:
    run = planted_run("token", images=16)

    def moved(layers: int, **origin: str) -> Any:
        """The same parts, some layers higher up."""
        p = run.features.provenance
        place = {"layer": p.layer + layers, "next_layer": p.next_layer + layers}
        own = replace(p, origin=replace(p.origin, **origin), **place)
        fitted = replace(run.fit, provenance=replace(run.fit.provenance, **place))
        return replace(run.features, provenance=own), fitted

    first, (features, fit) = (run.features, run.fit), moved(1)
    check_parts([first, (features, fit)])
    turned = replace(features, discovery=features.heldout, heldout=features.discovery)
    for other, message in (
        (moved(1, images_fingerprint="0" * 16), "not of the same model and images"),
        (moved(1, weights_fingerprint="0" * 16), "not of the same model and images"),
        ((turned, fit), "hold out different images"),
        ((features, replace(fit, destination="cluster")), "to a token and to a cluster"),
        ((features, run.fit), "both edit the attention of layer"),
    ):
        with pytest.raises(UsageError, match=message):
            check_parts([first, other])


def test_a_partner_is_found_by_the_id_that_the_image_is_paired_with() -> None:
    source: Any = Names()
    assert find_partners(source, ["a", "c"], {"a": "c", "c": "b"}) == [0, 2]
    with pytest.raises(UsageError, match=r"1 of 2 images have no partner.*first is c"):
        find_partners(source, ["a", "c"], {"a": "c"})
    with pytest.raises(UsageError, match=r"z is not among the given images \(1 of 2"):
        find_partners(source, ["a", "c"], {"a": "b", "c": "z"})


def test_images_are_spread_evenly() -> None:
    assert spread_evenly([9, 1, 5], None) == [1, 5, 9]
    assert spread_evenly(range(100), 3) == [0, 50, 99]
    assert spread_evenly(range(4), 10) == [0, 1, 2, 3]


def test_a_result_of_several_layers_is_the_lowest_one_s_with_all_fits_as_parents() -> None:
    fits: list[Any] = [
        SimpleNamespace(
            layer=layer,
            next_layer=layer + 1,
            identity=f"fit of {layer}",
            provenance=Provenance(origin=ORIGIN, layer=layer, next_layer=layer + 1),
        )
        for layer in (5, 2, 7)
    ]
    found = joint_provenance(fits, {"a": 1})
    assert (found.layer, found.next_layer, found.options) == (2, 3, {"a": 1})
    assert found.parents == {f"fit_{layer}": f"fit of {layer}" for layer in (2, 5, 7)}
    assert joint_provenance(fits[:1], {}).parents == {"fit": "fit of 5"}
    circuit: Any = SimpleNamespace(identity="circuit of 5")
    of_one = joint_provenance(fits[:1], {}, circuit)
    assert of_one.parents == {"fit": "fit of 5", "circuit": "circuit of 5"}
