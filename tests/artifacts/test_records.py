"""What artefacts say of the files behind them."""

from __future__ import annotations

import os

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.errors import UsageError
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit


def test_a_file_whose_name_is_no_unicode_is_refused_before_a_result_names_it(tmp_path):
    A, c = slow.random_case(0)
    trace = make_trace(torch.from_numpy(A))
    made = fit(trace, make_features(trace, torch.from_numpy(c), 4), num_permutations=19)
    odd = os.fsdecode(b"f\xff.safetensors")
    made.save(tmp_path / odd)
    found = circuit(made, top_k=3)
    with pytest.raises(UsageError, match="no UTF-8"):
        found.save(tmp_path / "circuit.json")
    assert [path.name for path in tmp_path.iterdir()] == [odd]
    os.rename(tmp_path / odd, tmp_path / "fit.safetensors")
    found.fit_file = str(tmp_path / "fit.safetensors")
    found.save(tmp_path / "circuit.json")
    assert found.load(tmp_path / "circuit.json").fit_file == found.fit_file
