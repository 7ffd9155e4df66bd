"""Which device a model runs on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import xaikit
from xaikit.errors import UsageError
from xaikit.statistics.totals import as_float64
from xaikit.towers.device import move, pick_device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_a, **_k: None)
    assert pick_device("auto").type == expected


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_under_torchrun_each_process_has_the_gpu_of_its_local_rank(monkeypatch, name):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_a, **_k: None)
    assert str(pick_device(name)) == "cuda:3"
    assert str(pick_device("cuda:1")) == "cuda:1"
    assert str(pick_device("cpu")) == "cpu"


def test_devices_that_cannot_be_used_are_named():
    with pytest.raises(UsageError, match="device 'abacus' cannot be used"):
        pick_device("abacus")


def test_no_float64_goes_to_mps():
    module = nn.Linear(2, 2).double()
    module.register_buffer("table", torch.ones(2, dtype=torch.float64))
    moved = []
    module.to = lambda device: moved.append(device)
    move(module, torch.device("mps"))
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}
    assert moved == [torch.device("mps")]


def lines_of(package: str, pattern: str) -> list[str]:
    """Lines of a package's code that ask for something."""
    files = sorted((Path(xaikit.__file__).parent / package).rglob("*.py"))
    assert files
    text = [line for path in files for line in path.read_text().splitlines()]
    return [line for line in text if re.search(pattern, line)]


def test_nothing_in_towers_asks_for_float64():
    lines = lines_of("towers", r"float64|\.double\(")
    assert all("==" in line or '"""' in line for line in lines), lines


@pytest.mark.parametrize("package", ["interventions", "rankings"])
def test_what_a_model_hands_out_becomes_float64_where_there_is_one(package):
    """Through `as_float64`, which knows that MPS has none."""
    lines = lines_of(package, r"\.double\(|\.to\([^)]*float64\)|dtype=torch\.float64, device")
    assert lines == []


def test_float64_is_reached_by_way_of_its_home():
    moved = []

    class OfMps:
        device = torch.device("mps")

        def to(self, where):
            moved.append(where)
            return torch.ones(2)

    assert as_float64(OfMps()).dtype == torch.float64
    assert moved == [torch.device("cpu")]
    assert as_float64(torch.ones(2, dtype=torch.float16)).dtype == torch.float64
