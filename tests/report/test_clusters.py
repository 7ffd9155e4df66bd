"""What a card says of its cluster: size, place, members and effects, and what to doubt."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest
import torch
from report.made_parts import made_parts

from xaikit.report.page import clusters as module
from xaikit.report.page.clusters import cluster_cards, kind_of, spoken
from xaikit.report.page.edges import layer_record
from xaikit.report.page.members import members, places, sampled_images
from xaikit.report.page.parts import LayerParts


class Named:
    """Pictures of which there are only names."""

    def name(self, image: int) -> str:
        return f"{image}.png"

    def tile(self, image: int, patch: int | None, _grid: tuple[int, int]) -> str:
        return f"{image}/{patch}"


@pytest.fixture
def parts() -> LayerParts:
    return made_parts()


def cards(parts: LayerParts) -> dict[int, dict[str, Any]]:
    found = cluster_cards(parts, Named())  # type: ignore[arg-type]
    return {card["cluster"]: card for card in found}


def test_cards_are_of_the_clusters_that_hold_tokens_largest_first(parts: LayerParts) -> None:
    labels = parts.features.labels
    labels[labels == 2] = 0
    sizes = torch.bincount(labels.flatten(), minlength=4)
    parts.features.cluster_sizes = sizes
    found = cards(parts)
    assert list(found) == sorted({0, 1, 3}, key=lambda k: -int(sizes[k]))
    for cluster, card in found.items():
        assert card["size"] == int(sizes[cluster])
        assert card["share"] == pytest.approx(int(sizes[cluster]) / 60)
        assert card["images"] == pytest.approx(float((labels == cluster).any(1).float().mean()))
        shown = [*card["central"], *card["random"]]
        for tile in shown:
            image, patch = tile["src"].split("/")
            token = 0 if patch == "None" else int(patch) + 1
            assert int(labels[int(image), token]) == cluster
            name = "class token" if token == 0 else f"patch (0, {token - 1})"
            assert tile["alt"] == f"{name} of {image}.png"
            assert tile["framed"] == (token > 0)


def test_effects_of_a_cluster_are_its_own(parts: LayerParts) -> None:
    effects = [
        Some(cluster_id=k, ablation_effect=k / 10, ablation_qvalue=k / 100, ablation_pvalue=0.9)
        for k in (1, 3)
    ]
    parts.causal = Some(effects=effects)  # type: ignore[assignment]
    live = [{"cluster_id": 3, "live_ablation": 0.7, "live_injection": 0.1}]
    parts.intervention = Some(clusters=live)  # type: ignore[assignment]
    found = cards(parts)
    assert (found[1]["ablation"], found[1]["ablation_q"]) == (0.1, 0.01)
    assert (found[3]["ablation_q"], found[3]["live"]) == (0.03, 0.7)
    assert "live" not in found[1]
    assert "ablation" not in found[0]


def test_prefix_tokens_are_called_what_they_are(parts: LayerParts) -> None:
    """A model may have registers and no class token."""
    parts.fit.prefix_kinds = ["register 1"]
    parts.features.labels[:, 0] = 3
    parts.features.labels[:, 1:][parts.features.labels[:, 1:] == 3] = 0
    parts.features.cluster_sizes = torch.bincount(parts.features.labels.flatten(), minlength=4)
    card = cards(parts)[3]
    assert card["notes"][0] == "holds the register 1 and nothing else"
    assert all(tile["alt"].startswith("register 1 of ") for tile in card["random"])
    assert layer_record(parts)["prefixKinds"] == ["register 1"]


def test_a_cluster_holds_a_prefix_token_that_is_in_it_in_half_of_the_images(
    parts: LayerParts,
) -> None:
    parts.features.labels[:, 0] = torch.tensor([0] * 6 + [1] * 5 + [3])
    found = cards(parts)
    assert found[0]["notes"] == ["holds the class token"]
    assert (found[1]["notes"], found[3]["notes"]) == ([], [])


def test_a_cluster_that_never_moves_and_one_of_sinks_say_so(parts: LayerParts) -> None:
    labels = parts.features.labels
    labels[:] = torch.tensor([0, 1, 1, 2, 2])
    parts.fit.token_norms = torch.tensor([9.0, 1, 9, 1, 1])
    parts.features.cluster_sizes = torch.bincount(labels.flatten(), minlength=4)
    parts.fit.edge_zscores[:], parts.fit.edge_pvalues[:] = 0.0, 1.0
    found = cards(parts)
    still = "sits at the same tokens in every image: its edges cannot be tested"
    assert found[1]["notes"] == [still, "50% of it are sink tokens (of high norm)"]
    assert found[2]["notes"] == [still]
    parts.fit.edge_zscores[1, 0, 0] = 2.0
    assert cards(parts)[1]["notes"][0] == "sits at the same tokens in every image"
    labels[0] = torch.tensor([0, 1, 2, 2, 1])
    assert not any("same tokens" in note for note in cards(parts)[1]["notes"])


def test_the_last_clusters_are_the_prefix_s_and_are_spoken_of_by_what_they_are(
    parts: LayerParts,
) -> None:
    parts.features.kinds = ["class token", "register"]
    assert [kind_of(parts, k) for k in range(4)] == ["", "", "class token", "register"]
    card: dict[str, Any] = {"id": "2.3", "cluster": 3, "kind": "register", "words": None}
    assert (spoken(card, False), spoken(card, True)) == ("the register", "the register (2.3)")
    plain = {**card, "kind": "", "words": {"word": "sky", "holds": False}}
    assert (spoken(plain, False), spoken(plain, True)) == ("cluster 3", "cluster 2.3")


def test_central_members_are_nearest_to_the_centroid_one_an_image(parts: LayerParts) -> None:
    assert parts.trace is not None
    generator = torch.Generator().manual_seed(1)
    parts.features.centroids = torch.rand(4, 12, generator=generator)
    labels = parts.features.labels
    gates = torch.cat([parts.trace.gates(image, image + 1) for image in range(12)]).float()
    apart = ((gates - parts.features.centroids[labels]) ** 2).sum(-1)
    for cluster, found in enumerate(members(parts)):
        best = {}
        for image in range(12):
            own = [t for t in range(5) if labels[image, t] == cluster]
            if own:
                best[image] = min(own, key=lambda t: float(apart[image, t]))
        order = sorted(best, key=lambda image: float(apart[image, best[image]]))[:6]
        assert found.central == [(image, best[image]) for image in order]
        assert all(int(labels[member]) == cluster for member in found.random)
        assert not set(found.random) & set(found.central)
        assert len({image for image, _ in found.random}) == len(found.random)
    usable = {0, 5}
    assert {i for one in members(parts, usable) for i, _ in one.central} <= usable
    parts.trace = None
    assert all(one.central == [] for one in members(parts))


def test_galleries_are_chosen_from_images_that_are_spread_over_all() -> None:
    assert sampled_images(3) == [0, 1, 2]
    many = sampled_images(1000)
    assert (len(many), many[0], many[-1]) == (256, 0, 999)
    share = places(np.array([[0, 1], [0, 0], [1, 0], [0, 0]]), 2)
    assert share.tolist() == [[0.75, 0.75], [0.25, 0.25]]


def test_where_a_cluster_lies_is_shown_of_its_patches_alone(
    parts: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "packed", lambda values: {"values": values.tolist()})
    found = cards(parts)[1]["where"]
    expected = (parts.features.labels == 1).double().mean(0)[1:]
    assert found == {"values": pytest.approx(expected.tolist()), "grid": [1, 4]}
    parts.fit.grid = [2, 4]
    assert cards(parts)[1]["where"] is None
