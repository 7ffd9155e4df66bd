"""Shapes in annotations can be executed: one that contradicts the code is an error.

``XAIKIT_SHAPES=1 pytest`` has the whole test run do so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import shapes
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


def test_a_wrong_kind_and_a_wrong_size_are_errors_and_right_ones_pass():
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["refused", "refused"]
