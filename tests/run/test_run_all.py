"""What of a run is read together."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

from xaikit.run.run_all import _Run


def test_columns_of_layers_are_read_together_as_far_as_they_fit() -> None:
    run: Any = _Run.__new__(_Run)
    run.subject = Some(options=Some(memory=100), tower=Some(info=Some(tokens=5)))
    # Bytes of each layer's columns, for the model's 5 tokens; one alone is too large.
    needs = {0: 12, 1: 8, 3: 4, 4: 17, 7: 40, 8: 20}
    tests = {
        at: Some(columns=Some(bytes_needed=lambda tokens, need=need: need * tokens))
        for at, need in needs.items()
    }
    assert run._column_groups(tests) == [[0, 1], [3], [4], [7], [8]]
    assert run._column_groups({}) == []
