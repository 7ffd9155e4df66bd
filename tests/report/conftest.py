"""Pages and a browser that the tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report.browser import browser
from report.made_run import HOSTILE, made_run

from xaikit.report.page import write_report


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
