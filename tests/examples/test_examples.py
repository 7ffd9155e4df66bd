"""The examples run as their first lines say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


STAND_IN = """#!/bin/bash
echo "$@" > started
trap 'echo ended > ended; exit 143' TERM
touch ready
while true; do sleep 0.05; done
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_slurm_job_ends_its_run_and_asks_to_be_requeued(tmp_path: Path, number: int) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("torchrun", STAND_IN), ("scontrol", '#!/bin/bash\necho "$@" > requeued\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    settings = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    command = ["bash", str(EXAMPLES / "11_slurm.sbatch"), "ViT-B-16", "openai", "photos", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **settings})
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    requeued = number == signal.SIGUSR1
    assert process.wait(timeout=30) == (0 if requeued else 143)
    assert (tmp_path / "ended").exists()
    assert (tmp_path / "requeued").exists() == requeued
    words = (tmp_path / "started").read_text().split()
    assert words[words.index("-m") + 1] == "xaikit"
    assert words[words.index("--images") + 1] == "photos"


@pytest.mark.slow
def test_one_image_against_the_common_circuit(tmp_path: Path) -> None:
    script = str(EXAMPLES / "08_one_image.py")
    few = ("--count", "16", "--test", "2", "--views", "2", "--layers", "1,3", "--draws", "1")
    printed = run(sys.executable, script, *few, cwd=tmp_path)
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| ")]
    found = {row[1].strip(): (float(row[2]), float(row[3])) for row in rows[2:]}
    assert set(found) == {"own", "common", "random"}
    assert found["own"][0] > found["random"][0]


def test_each_example_has_a_number_of_its_own() -> None:
    numbers = [path.name[:2] for path in EXAMPLES.iterdir() if path.is_file()]
    assert sorted(numbers) == [f"{number:02d}" for number in range(1, len(numbers) + 1)]
