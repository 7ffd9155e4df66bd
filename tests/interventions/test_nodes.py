"""Whole clusters: which are measured, and what their records say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xaikit.interventions.nodes import agreement, node_records, present_clusters

LABELS = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 0]])
"""5, 2 and 1 rows in two images of four tokens; none of the last cluster."""


def site(layer: int = 4) -> Any:
    generator = torch.Generator().manual_seed(layer)
    fit = SimpleNamespace(
        prototypes=torch.randn(4, 2, 4, generator=generator),
        pair_counts=None,
        counts=torch.tensor([6, 3, 0, 2]),
        layer=layer,
        next_layer=layer + 1,
    )
    return SimpleNamespace(labels=LABELS, clusters=4, fit=fit, layer=layer + 1)


def live_of(*sites: Any) -> Any:
    return SimpleNamespace(sites=list(sites), objective=SimpleNamespace(metric="cosine"))


def measured(nodes: int) -> list[dict[str, torch.Tensor]]:
    """Effects of ablations and of injections ``[cluster, image]``, whose median is no mean."""
    ablated = torch.arange(1.0, nodes + 1).double()[:, None] * torch.tensor([1.0, 2.0, 9.0])
    return [{"cosine": ablated}, {"cosine": 100 + ablated}]


def test_a_cluster_is_measured_where_both_parts_of_the_images_hold_it() -> None:
    """The third one is in no discovery image, the last one in none that is run."""
    assert present_clusters(live_of(site(), site())) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_effects_of_a_cluster_are_means_and_those_a_row_count_the_rows_that_change() -> None:
    own = site()
    live, nodes = live_of(own), [(0, 0), (0, 1)]
    records = node_records(live, nodes, measured(2))
    p, counts = own.fit.prototypes.double(), own.fit.counts.double()
    for (_, k), record, factor in zip(nodes, records, (1.0, 2.0), strict=True):
        others = [other for other in range(4) if other != k]
        moved = sum(counts[o] * (p[o] - p[k]).abs().mean() for o in others) / counts[others].sum()
        rows = {0: 2.5, 1: 1.0}[k]
        expected = {
            "cluster_id": k,
            "support": int(counts[k]),
            "ablation_effect": float(p[k].abs().mean()),
            "injection_effect": float(moved),
            "live_ablation": 4 * factor,
            "live_injection": 100 + 4 * factor,
            "live_ablation_per_row": 4 * factor / rows,
            "live_injection_per_row": (100 + 4 * factor) / (4 - rows),
        }
        assert record == pytest.approx(expected)


def test_records_of_several_layers_name_the_gates_and_the_attention_that_is_edited() -> None:
    live = live_of(site(4), site(7))
    found = node_records(live, [(0, 1), (1, 1)], measured(2))
    assert [(each["layer"], each["next_layer"]) for each in found] == [(4, 5), (7, 8)]
    assert found[0]["ablation_effect"] != found[1]["ablation_effect"]


def test_each_kind_of_effect_is_compared_with_what_that_kind_did() -> None:
    columns = {
        "ablation_effect": [1, 2, 3],
        "live_ablation": [1, 2, 3],
        "live_ablation_per_row": [3, 2, 1],
        "injection_effect": [1, 3, 2],
        "live_injection": [2, 1, 3],
        "live_injection_per_row": [1, 3, 2],
    }
    rows = [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]
    assert agreement(rows) == {
        "clusters": 3,
        "ablation": pytest.approx(1.0),
        "ablation_per_row": pytest.approx(-1.0),
        "injection": pytest.approx(-0.5),
        "injection_per_row": pytest.approx(1.0),
    }
