"""What rankings that run the model are scored on, and what a circuit is chosen by."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch
from planted_run import Pictures, planted_run

from xaikit.interventions import Classifier, LiveOptions, Objective
from xaikit.rankings import live as module
from xaikit.rankings.live import AimedScores, aimed_scores, image_ids, joint_scores

AIM = Objective(kind="toward", toward="red", value=lambda out, *_: out.embedding[:, 0])
CLASSES = Classifier(name="a", logits=lambda out: out.embedding)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What reaches the live model; scores are made up."""
    seen: dict[str, Any] = {}

    def opened(*given: Any, **more: Any) -> str:
        seen.update(more, given=given)
        return "a live model"

    def scored(key: str, live: str) -> tuple[torch.Tensor]:
        assert live == "a live model"
        return (torch.full((1, 1, 1), float(len(key))),)

    monkeypatch.setattr(module, "Live", opened)
    monkeypatch.setattr(module, "score", scored)
    return seen


def test_rankings_are_scored_on_some_discovery_images_or_on_those_that_are_given(
    asked: dict[str, Any],
) -> None:
    parts: Any = [(Some(discovery=[1, 3, 5, 7, 9]), "a fit")]
    options = LiveOptions(score_images=3, ablation="resample", seed=4)
    given: Any = {"ids": list("abcdefghij"), "options": options, "objective": AIM}
    given |= {"classifier": CLASSES, "progress": print}
    found = joint_scores(["reach", "rows"], "tower", "source", parts, **given)  # type: ignore[arg-type]
    assert {key: float(table) for key, (table,) in found.items()} == {"reach": 5, "rows": 4}
    assert asked["given"] == ("tower", "source", parts)
    assert asked["images"] == [1, 5, 9]
    assert asked["options"] == LiveOptions(score_images=3, ablation="mean", seed=4)
    assert (asked["objective"], asked["classifier"], asked["progress"]) == (AIM, CLASSES, print)
    joint_scores(["reach"], "tower", "source", parts, images=[2, 4], **given)  # type: ignore[arg-type]
    assert asked["images"] == [2, 4]


@pytest.mark.parametrize(
    ("aim", "rank", "scored", "sized", "sided"),
    [
        (Objective(), "reach", ["reach"], False, False),
        (Objective(), "attribution", ["attribution"], False, False),
        (AIM, "reach", ["reach", "attribution"], False, True),
        (AIM, "kept", ["kept", "attribution"], True, True),
        (AIM, "attribution", ["attribution"], True, True),
    ],
)
def test_edges_are_ordered_by_size_and_their_side_is_that_of_their_attribution(
    monkeypatch: pytest.MonkeyPatch,
    aim: Objective,
    rank: str,
    scored: list[str],
    sized: bool,
    sided: bool,
) -> None:
    seen: dict[str, Any] = {}
    tables = {
        key: (torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(at)),)
        for at, key in enumerate(("reach", "kept", "attribution"))
    }

    def joint(rankings: Any, *given: Any, **more: Any) -> Any:
        seen.update(more, rankings=rankings, given=given)
        return {key: tables[key] for key in rankings}

    monkeypatch.setattr(module, "joint_scores", joint)
    given: Any = {"ids": ["a"], "options": LiveOptions(), "objective": aim, "images": [3]}
    given |= {"classifier": CLASSES, "progress": print}
    found = aimed_scores(rank, "tower", "source", ["parts"], **given)  # type: ignore[arg-type,list-item]
    assert seen == {**given, "rankings": scored, "given": ("tower", "source", ["parts"])}
    assert torch.equal(found.sizes[0], tables[rank][0].abs() if sized else tables[rank][0])
    assert (found.effects == tables["attribution"]) if sided else (found.effects is None)
    assert (found.objective, set(found.scores)) == (aim, set(scored))


def test_the_objective_of_a_circuit_is_that_of_the_options_and_the_classifier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "chosen_objective", lambda *given: seen.append(given) or AIM)
    monkeypatch.setattr(module, "joint_scores", lambda keys, *_, **__: dict.fromkeys(keys, ()))
    options = LiveOptions(objective="margin")
    given: Any = {"ids": [], "options": options, "classifier": CLASSES}
    found = aimed_scores("reach", "tower", "source", [], **given)  # type: ignore[arg-type]
    assert seen == [("tower", options, CLASSES)]
    assert found.objective is AIM


def test_one_layer_s_circuit_takes_sizes_and_where_there_is_a_sign_sides() -> None:
    size, effect = torch.ones(1, 1, 1), -torch.ones(1, 1, 1)
    signed = AimedScores(scores={}, sizes=(size,), effects=(effect,), objective=AIM)
    assert signed.of_only_layer() == {"scores": size, "effects": effect, "objective": AIM}
    plain = AimedScores(scores={}, sizes=(size,), effects=None, objective=Objective())
    assert plain.of_only_layer() == {"scores": size}


def test_images_beside_those_that_were_traced_do_no_harm() -> None:
    run = planted_run("token", images=16)

    class More(Pictures):
        """The same images, and one of another name before them."""

        def __init__(self) -> None:
            super().__init__(run.source.images)
            self.ids = ["another", *run.source.ids]

        def digest(self, i: int) -> str:
            return "-" if i == 0 else super().digest(i - 1)

    assert image_ids(More(), run.features) == run.trace.images
