"""Pages and a browser that the tests of the page share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report.browser import browser
from report.made_run import HOSTILE, TOWARD, made_run

from xaikit.artifacts.results import Circuit, Intervention
from xaikit.report.page import Naming, write_report


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one pair of layers on the demo, edges to tokens."""
    return made_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def page(run_folder: Path) -> Path:
    """Its page."""
    return write_report(run_folder)


@pytest.fixture(scope="session")
def layers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two layers, edges to clusters."""
    folder = tmp_path_factory.mktemp("layers")
    return made_run(folder, layers="2,3", options=("--destination", "cluster"))


@pytest.fixture(scope="session")
def layers_page(layers_folder: Path) -> Path:
    """Its page."""
    return write_report(layers_folder)


@pytest.fixture(scope="session")
def directed_page(layers_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the same two layers, whose circuit is towards a prompt against another."""
    folder = tmp_path_factory.mktemp("directed") / "run"
    shutil.copytree(layers_folder, folder)
    objective = {"kind": "toward", "toward": TOWARD, "against": "blue"}
    circuit = Circuit.load(folder / "circuit.json")
    circuit.paths = [
        replace(edge, effect=0.01, side="against" if at % 3 == 1 else "for")
        for at, edge in enumerate(circuit.paths)
    ]
    circuit.objective = objective
    circuit.save(folder / "circuit.json")
    live = Intervention.load(folder / "intervene.json")
    live.curves += [{**curve, "metric": "toward"} for curve in live.curves]
    live.random += [{**band, "metric": "toward"} for band in live.random]
    live.full_effect["toward"], live.objective = 0.2, objective
    live.chance = {
        "share": 0.1,
        "best": "energy",
        "effect": 0.12,
        "rankings": 1,
        "draws": 40,
        "random_mean": 0.01,
        "random_best": 0.02,
        "pvalue": 0.024,
    }
    live.save(folder / "intervene.json")
    return write_report(folder, naming=Naming(wanted=False))


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images whose names are markup."""
    folder = tmp_path_factory.mktemp("hostile")
    places = [folder / "photos" / "a<", folder / "photos" / "b"]
    for place in places:
        place.mkdir(parents=True)
    for at in range(16):
        # The folder's name ends in "<" and the file's starts with "script>": the id closes an
        # element that it is written into unescaped.
        start = "script><!--" if at % 2 == 0 else ""
        name = f"{start}{at}{HOSTILE}.png"
        Image.effect_noise((64, 64), 30 + at).convert("RGB").save(places[at % 2] / name)
    options = ("--images", str(folder / "photos"))
    return write_report(made_run(folder / "run", images=16, options=options))
