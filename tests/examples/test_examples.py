"""The examples run as their first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command: str, cwd: Path) -> str:
    """Run a command with this environment's `xaikit` first on the path; return its output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_your_own_images(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for at in range(12):
        (photos / f"class{at % 3}").mkdir(parents=True, exist_ok=True)
        Image.effect_noise((80, 70), 20 + at).convert("RGB").save(
            photos / f"class{at % 3}/{at}.jpg"
        )
    script = str(EXAMPLES / "01_your_own_images.sh")
    run("bash", script, "photos", "--target-layer", "2", cwd=tmp_path)
    written = {path.name for path in (tmp_path / "circuits").iterdir()}
    assert {"circuit.json", "causal.json", "target_causal.json", "heatmaps"} <= written


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_from_python.py", "03_comparing_layers.py"])
def test_python_examples(name: str, tmp_path: Path) -> None:
    printed = run(sys.executable, str(EXAMPLES / name), "24", cwd=tmp_path)
    assert "cluster" in printed
    assert len(printed.splitlines()) >= 5
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("tower", [("--layers", "3"), ("--planted", "4", "--layers", "1")])
def test_rankings_are_compared(tower: tuple[str, ...], tmp_path: Path) -> None:
    few = ("--count", "24", "--test", "8", "--draws", "2", "--rank", "reach,weight")
    script = str(EXAMPLES / "05_which_edges_matter.py")
    printed = run(sys.executable, script, *tower, *few, cwd=tmp_path)
    for destination in ("token", "cluster"):
        table = printed.split(f"destination {destination}")[1].split("###")[0]
        cells = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
        areas = {row[1].strip(): row[4] for row in cells}
        assert {"reach", "weight", "random"} <= set(areas)
        assert float(areas["reach"]) > float(areas["random"])
