"""What the tensors of a file may be, and the line that says which one is not."""

from __future__ import annotations

import re

import pytest
import torch

from xaikit.artifacts.tensor_schema import FLOATS, TensorSpec, require_tensors
from xaikit.errors import UsageError

SPECS = {
    "rates": TensorSpec("K", FLOATS, 0, 1),
    "table": TensorSpec("K J"),
    "scores": TensorSpec("K", nan="tests"),
    "more": TensorSpec("J", optional=True),
    "norms": TensorSpec("J", empty=True),
}
NAN = float("nan")


def made(**changed):
    """Tensors of three clusters and two ends, some of them changed or left out."""
    tensors = {
        "rates": torch.tensor([0.0, 0.5, 1.0]),
        "table": torch.zeros(3, 2),
        "scores": torch.ones(3),
        "norms": torch.zeros(0),
        **changed,
    }
    return {name: each for name, each in tensors.items() if each is not None}


def test_sizes_that_are_not_given_are_those_of_the_first_tensor():
    assert require_tensors("f", "fit", SPECS, made(), {}) == {"K": 3, "J": 2}
    given = {"K": 3, "F": 9}
    found = require_tensors("f", "fit", SPECS, made(more=torch.ones(2), norms=torch.ones(2)), given)
    assert found == {"K": 3, "J": 2, "F": 9}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"table": None}, "it lacks table"),
        ({"rates": torch.ones(3, dtype=torch.int64)}, "rates is of int64, expected float32 or"),
        ({"rates": torch.ones(3).half()}, "rates is of float16"),
        ({"table": torch.zeros(4, 2)}, "table has shape [4, 2], expected [3, J]"),
        ({"table": torch.zeros(3, 2, 1)}, "table has shape [3, 2, 1], expected [3, J]"),
        ({"table": torch.zeros(0, 2)}, "table has shape [0, 2], expected [3, J]"),
        ({"more": torch.zeros(3)}, "more has shape [3], expected [2]"),
        ({"norms": torch.zeros(3)}, "norms has shape [3], expected [2]"),
        ({"rates": torch.tensor([0.0, -1e-5, 1.0])}, "numbers in [-1e-05, 1], expected [0, 1]"),
        ({"rates": torch.tensor([0.0, 1.00001, 1.0])}, "expected [0, 1]"),
        ({"rates": torch.tensor([0.0, NAN, 1.0])}, "rates holds numbers that are not finite"),
        ({"table": torch.full((3, 2), float("inf"))}, "table holds numbers that are not finite"),
        ({"scores": torch.full((3,), NAN)}, "scores holds numbers that are not finite"),
    ],
)
def test_what_is_not_as_specified_is_named(changed, said):
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        require_tensors("fit.st", "fit", SPECS, made(**changed), {})
    assert str(caught.value).startswith("fit.st: ")
    assert "it is no complete fit file: make it again" in str(caught.value)


def test_a_size_that_the_fields_give_is_that_of_every_tensor():
    with pytest.raises(UsageError, match=re.escape("rates has shape [3], expected [4]")):
        require_tensors("f", "fit", SPECS, made(), {"K": 4})


def test_a_mean_may_be_beyond_its_range_by_rounding():
    require_tensors("f", "fit", SPECS, made(rates=torch.tensor([-5e-7, 0.5, 1 + 5e-7])), {})


def test_what_is_not_known_is_no_number_everywhere_or_known():
    nothing = torch.full((3,), NAN)
    for scores in (nothing, torch.ones(3)):
        require_tensors("f", "fit", SPECS, made(scores=scores), {}, ("tests",))
    nothing[1] = 0.5
    with pytest.raises(UsageError, match="scores is NaN in places"):
        require_tensors("f", "fit", SPECS, made(scores=nothing), {}, ("tests",))
    # What is not known is one thing by name, not any number.
    with pytest.raises(UsageError, match="table holds numbers that are not finite"):
        require_tensors("f", "fit", SPECS, made(table=torch.full((3, 2), NAN)), {}, ("tests",))
