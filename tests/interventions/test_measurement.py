"""What is measured in the one pass over the test images, and which figure each effect becomes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xaikit.interventions import EdgeSet, measurement
from xaikit.interventions.measurement import Measurement, curves_alone, means

COUNTS = (torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 4.0]]))
"""Entries of one cluster's edges to two places, in two layers of two heads and one head."""
SHAPES = ((1, 2, 2), (1, 1, 2))


def effect(mean: float) -> dict[str, torch.Tensor]:
    """An edit's effects on three images, whose median is 0."""
    return {"cosine": torch.tensor([[0.0, 0.0, 3.0 * mean]]).double()}


class StandIn:
    """A live model that knows the effect of each patch by what the patch does."""

    shapes, counts, sites = SHAPES, COUNTS, ()
    objective = SimpleNamespace(metric="cosine")

    def __init__(self, known: dict[Any, float]) -> None:
        self.known = known

    def measure(self, patches: list[Any], progress: Any = None) -> list[dict[str, torch.Tensor]]:
        return [effect(self.known[patch]) for patch in patches]


class Plan:
    """Two orders, whose curves are named by their patches."""

    modes, draws, seed, shares = ("remove", "keep"), 3, 5, (0.1, 1.0)
    orders = ("first", "second")

    def __init__(self, **changed: Any) -> None:
        self.__dict__.update(changed)

    def patches(self, _live: Any) -> list[Any]:
        return [("curve", order) for order in self.orders]

    def random_orders(self, _live: Any) -> list[str]:
        return [f"random {draw}" for draw in range(self.draws)]

    def records(self, _live: Any, measured: list[Any], full: Any) -> tuple[list[Any], list[Any]]:
        return [(float(each["cosine"].mean()), full["cosine"]) for each in measured], ["band"]


@pytest.fixture(autouse=True)
def named_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches are what they were made of."""

    def of_sets(sets: list[EdgeSet], *, keep: bool = False) -> tuple[str, bool]:
        assert sets == [CIRCUIT]
        return "circuit", keep

    def of_order(order: str, shares: list[float], mode: str = "remove") -> tuple[Any, ...]:
        return order, *(round(share, 6) for share in shares), mode

    monkeypatch.setattr(measurement, "full_patch", lambda _shapes: "full")
    monkeypatch.setattr(measurement, "sets_patch", of_sets)
    monkeypatch.setattr(measurement, "order_patch", of_order)
    monkeypatch.setattr(measurement, "Plan", Plan)
    monkeypatch.setattr(
        measurement, "chance_patches", lambda _live, orders, draws, seed: [(*orders, draws, seed)]
    )


CIRCUIT = EdgeSet(
    tables=(
        torch.tensor([[[True, False], [True, True]]]),
        torch.tensor([[[False, True]]]),
    )
)
SHARE = (1 + 1 + 3 + 4) / (2 * (1 + 3) + 2 + 4)


class Edges:
    """Two single edges, the weaker one of which does more."""

    def patches(self, _live: Any) -> list[str]:
        return ["edges"]

    def measured(self, _live: Any, found: list[Any]) -> list[Any]:
        assert len(found) == 1
        columns = zip((1.0, 2.0, 3.0, 4.0), (4.0, None, 1.0, 0.5), strict=True)
        return [SimpleNamespace(edge_effect=a, live_effect=b) for a, b in columns]


def fields(circuit: EdgeSet | None = CIRCUIT, plan: Any = None, **known: float) -> dict[str, Any]:
    plan = plan or Plan()
    share = round(SHARE, 6)
    live = {
        "full": 2.0,
        ("curve", "first"): 0.7,
        ("curve", "second"): 0.6,
        ("first", "second", plan.draws, 5): 0.0,
        "edges": 0.0,
        ("circuit", False): 1.0,
        ("circuit", True): 0.5,
        ("random 0", share, "remove"): 0.2,
        ("random 1", share, "remove"): 0.4,
        ("random 2", share, "remove"): known.get("best", 0.9),
    }
    made = Measurement(StandIn(live), plan, Edges(), circuit, nodes=False)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "chance_record", lambda _live, orders, found: len(found))
        return made.fields()


def test_a_circuit_is_removed_and_kept_and_compared_with_random_sets_of_its_cover() -> None:
    assert fields()["completeness"] == pytest.approx(
        {
            "edges": 4,
            "share": SHARE,
            "removed": 0.5,
            "kept": 0.25,
            "completeness": 0.5,
            "faithfulness": 0.75,
            "random_mean": (0.1 + 0.2 + 0.45) / 3,
            "random_high": 0.45,
            "pvalue": 1 / 4,
        }
    )
    assert fields(best=1.2)["completeness"]["pvalue"] == pytest.approx(2 / 4)


def test_without_random_sets_or_a_circuit_there_is_nothing_to_compare() -> None:
    assert fields(circuit=None)["completeness"] == {}
    alone = fields(plan=Plan(draws=0))["completeness"]
    assert (alone["random_mean"], alone["random_high"], alone["pvalue"]) == (None, None, 1.0)


def test_effects_are_means_and_curves_get_their_own_in_the_plan_s_order() -> None:
    found = fields()
    assert found["full_effect"] == {"cosine": pytest.approx(2.0)}
    assert found["curves"] == [(pytest.approx(0.7), 2.0), (pytest.approx(0.6), 2.0)]
    assert means({"a": torch.tensor([[0.0, 0.0, 6.0]])}) == {"a": 2.0}


def test_effects_of_single_edges_are_compared_with_what_prototypes_say() -> None:
    """Those of 4, 0 (an edge without an effect), 1 and ½ go against 1, 2, 3 and 4."""
    assert fields()["agreement"]["edges"] == pytest.approx(-0.4)


def test_chance_is_asked_of_removal_alone() -> None:
    """What a random order keeps says nothing of what a ranking removes."""
    assert fields()["chance"] == 1
    live: Any = StandIn({})
    for modes, asked in ((("keep",), 0), (("remove",), 1)):
        made = Measurement(live, Plan(modes=modes), Edges(), nodes=False)  # type: ignore[arg-type]
        assert len(made.patches()["chance"]) == asked


def test_curves_of_another_ablation_are_of_the_same_orders_and_of_its_own_full_effect() -> None:
    live: Any = StandIn({"full": 3.0, ("curve", "a"): 1.0, ("curve", "b"): 2.0})
    full, curves = curves_alone(live, ["a", "b"], Plan())  # type: ignore[arg-type,list-item]
    assert full == {"cosine": pytest.approx(3.0)}
    assert curves == [(pytest.approx(1.0), 3.0), (pytest.approx(2.0), 3.0)]
