"""What makes weights others, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xaikit.towers.fingerprints import fingerprint

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


def test_order_and_wrappers_leave_a_fingerprint_alone() -> None:
    own = fingerprint(STATE)
    assert fingerprint(dict(reversed(STATE.items()))) == own
    assert fingerprint({f"_orig_mod.module.{name}": each for name, each in STATE.items()}) == own
    assert len(own) == 32


@pytest.mark.parametrize(
    ("state", "extra"),
    [
        ({**STATE, "b": torch.tensor([1.0, 2.0])}, ()),
        ({"a.weight": STATE["a.weight"], "c": STATE["b"]}, ()),
        ({**STATE, "a.weight": STATE["a.weight"].view(3, 2)}, ()),
        ({**STATE, "b": torch.ones(2).view(torch.int32)}, ()),
        ({"a.weight": STATE["a.weight"]}, ()),
        ({**STATE, "d": torch.zeros(0)}, ()),
        (STATE, ("activation quick_gelu",)),
    ],
    ids=["a number", "a name", "a shape", "a format", "one less", "an empty one", "an activation"],
)
def test_all_that_weights_compute_is_in_their_fingerprint(
    state: dict[str, Tensor], extra: tuple[str, ...]
) -> None:
    assert fingerprint(state, *extra) != fingerprint(STATE)
