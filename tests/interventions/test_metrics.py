"""Changes of outputs."""

from __future__ import annotations

import math

import pytest
import torch

from xaikit.interventions import Classifier, changes, class_changes, cosine_distance, metrics
from xaikit.towers import Outputs


def test_cosine_distance_is_one_minus_cos_and_keeps_small_effects() -> None:
    left = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    right = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    assert cosine_distance(left, right).tolist() == pytest.approx([1.0, 0.0])
    tiny = torch.tensor([[1.0, 1e-5]]), torch.tensor([[1.0, 0.0]])
    assert float(cosine_distance(*tiny)) == pytest.approx(5e-11, rel=1e-4)
    # Neighbours in float32, whose unit vectors in float32 are one and the same or far apart.
    near = torch.tensor([[0.3, 0.7, 0.2]])
    moved = torch.nextafter(near, torch.full_like(near, 2.0)) * torch.tensor([[1.0, 1.0, 1.5]])
    moved[0, 2] = near[0, 2]
    units = [each.double() / each.double().norm() for each in (near, moved)]
    expected = float((units[0] - units[1]).square().sum() / 2)
    assert 0 < expected < 1e-13
    assert float(cosine_distance(near, moved)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("most", [2, 3, 9])
def test_the_first_classes_of_a_batch_s_first_image_have_their_probabilities(most: int) -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [9.0, 0.0, 0.0]], requires_grad=True)
    named = Classifier(name="a", logits=lambda _: logits, names=("one", "two"))
    found = named.first_classes(Outputs(embedding=logits), most)
    total = math.exp(1) + math.exp(2) + math.exp(3)
    expected = [("two", math.exp(3)), ("class 2", math.exp(2)), ("one", math.exp(1))]
    assert found == [
        {"name": name, "probability": pytest.approx(each / total)} for name, each in expected[:most]
    ]


def test_classes_of_a_known_head_are_called_by_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "class_names", {3: ["zero", "one of three", "two"]}.__getitem__)
    head = Classifier(name="a", logits=lambda outputs: outputs.embedding)
    (first,) = head.first_classes(Outputs(embedding=torch.tensor([[1.0, 3.0, 2.0]])), 1)
    assert first["name"] == "one of three"


def test_class_changes_by_hand() -> None:
    clean = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    edited = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    found = class_changes(clean, edited, None)
    before = [math.exp(2) / (math.exp(2) + 1), 1 / (math.exp(2) + 1)]
    after = [1 / (1 + math.e), math.e / (1 + math.e)]
    kl = sum(p * math.log(p / q) for p, q in zip(before, after, strict=True))
    assert found["kl"].tolist() == pytest.approx([kl, 0.0], abs=1e-9)
    assert found["margin"].tolist() == pytest.approx([3.0, 0.0])
    assert found["accuracy"].tolist() == [1.0, 0.0]
    known = class_changes(clean, edited, torch.tensor([1, 1]))
    assert known["accuracy"].tolist() == [-1.0, 0.0]
    assert known["margin"].tolist() == pytest.approx([-3.0, 0.0])


def test_targets_are_looked_up_by_image() -> None:
    outputs = Outputs(torch.eye(2)), Outputs(torch.eye(2).flip(0))
    classifier = Classifier(
        name="made up",
        logits=lambda found: found.embedding,
        targets=torch.tensor([5, 0, 5, 1]),
    )
    found = changes(*outputs, classifier, [1, 3])
    assert found["accuracy"].tolist() == [1.0, 1.0]
    assert found["cosine"].tolist() == pytest.approx([1.0, 1.0])


def test_without_targets_the_class_of_the_clean_model_is_the_right_one() -> None:
    """And not that of the edited one, of which nothing could be lost."""
    outputs = Outputs(torch.eye(2)), Outputs(torch.eye(2).flip(0))
    classifier = Classifier(name="made up", logits=lambda found: found.embedding)
    found = changes(*outputs, classifier, [0, 1])
    assert found["accuracy"].tolist() == [1.0, 1.0]
    assert found["margin"].tolist() == [2.0, 2.0]
