"""Shapes in annotations are executed here and in what tests start: a contradiction is an error."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import jaxtyping, torch
from xaikit.artifacts.gates import pack_gates, unpack_gates
from xaikit.statistics.multiple import permutation_pvalues

gates = torch.ones(3, 9, dtype=torch.uint8)
assert torch.equal(unpack_gates(pack_gates(gates), 9), gates)
for call in (
    lambda: pack_gates(torch.zeros(3, 8)),
    lambda: permutation_pvalues(torch.zeros(2), torch.zeros(5, 3)),
):
    try:
        call()
    except jaxtyping.TypeCheckError:
        print("refused")
"""


def test_a_wrong_kind_and_a_wrong_size_are_errors_and_right_ones_pass(monkeypatch):
    monkeypatch.delenv("XAIKIT_SHAPES", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["refused", "refused"]
