"""What a run will need, in words: each figure in its own unit and place."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from xaikit.report.forecast import forecast_lines

GIB = 2**30


def said(**changed: Any) -> str:
    passes = [
        {"what": "clusters", "images": 1500, "forward": 1.25, "backward": 0.0},
        {"what": "reach", "images": 256, "forward": 2.0, "backward": 1.5},
    ]
    found = {"images": 1500, "pairs": 2, "passes": passes, "memory": 3 * GIB, "disk": 2**20 * 700}
    found |= {"memory_budget": 16 * GIB, "forward_passes": 4321, "backward_passes": 384}
    found |= {"seconds": 90.0, **changed}
    console = Console(width=120, record=True, file=io.StringIO())
    for line in forecast_lines(found):
        console.print(line)
    return console.export_text()


def test_each_pass_has_its_images_and_what_it_runs_of_the_model() -> None:
    lines = [" ".join(line.split()) for line in said().splitlines()]
    assert lines[0] == "1,500 images, 2 pairs of layers"
    # A pass without a gradient has no figure for one.
    assert "clusters 1,500 1.2" in lines
    assert "reach 256 2.0 1.5" in lines
    assert "memory beside the model: 3.0 GiB of 16.0 GiB (--memory)" in lines
    assert "disk: 700 MiB" in lines
    assert "4,321 forward and 384 backward passes of an image: about 90 s" in lines[-1]
    assert "1 pair of layers" in said(pairs=1)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(99.4, "99 s"), (600.0, "10 min"), (5999.0, "100 min"), (6000.0, "1.7 h")],
)
def test_a_duration_is_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert f"about {shown} of running the model here" in said(seconds=seconds)


@pytest.mark.parametrize(("size", "shown"), [(GIB - 1, "1,024 MiB"), (GIB, "1.0 GiB")])
def test_sizes_are_in_gib_from_one_on(size: int, shown: str) -> None:
    assert f"disk: {shown}" in said(disk=size)
