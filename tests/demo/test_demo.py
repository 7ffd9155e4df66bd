"""The embedded model: loads like any open_clip model, and is as good as its header says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from xaikit import demo
from xaikit.images import scenes

SCRIPT = Path(__file__).parents[2] / "examples" / "04_train_the_demo.py"


@pytest.fixture(scope="module")
def loaded() -> tuple:
    demo.register()
    model, _, preprocess = open_clip.create_model_and_transforms(
        demo.NAME, pretrained=str(demo.WEIGHTS)
    )
    return model.eval(), preprocess, open_clip.get_tokenizer(demo.NAME)


def test_registering_twice_keeps_one_entry() -> None:
    demo.register()
    demo.register()
    assert open_clip.list_models().count(demo.NAME) == 1
    assert open_clip.get_model_config(demo.NAME) == json.loads(demo.CONFIG.read_text())


def test_importing_the_demo_loads_no_torch() -> None:
    code = "import sys, xaikit.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_preprocessing_only_normalises(loaded: tuple) -> None:
    _, preprocess, _ = loaded
    scene = scenes.draw(0, 3)
    mean = np.array(open_clip.OPENAI_DATASET_MEAN)
    std = np.array(open_clip.OPENAI_DATASET_STD)
    expected = (scene.pixels / 255 - mean) / std
    seen = preprocess(scene.image()).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_weights_are_small_finite_halves() -> None:
    state = load_file(demo.WEIGHTS)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert all(value.isfinite().all() for value in state.values())
    assert demo.WEIGHTS.stat().st_size <= 15e6


@torch.inference_mode()
def test_scenes_find_their_captions_and_labels(loaded: tuple) -> None:
    model, preprocess, tokenizer = loaded
    count = 128
    _, factors = scenes.draw_batch(11, range(count))
    pixels = torch.stack([preprocess(scenes.draw(11, i).image()) for i in range(count)])
    image = model.encode_image(pixels, normalize=True)
    own = model.encode_text(tokenizer(scenes.captions(factors)), normalize=True)
    classes = model.encode_text(tokenizer(scenes.prompts()), normalize=True)
    found = ((image @ own.T).argmax(1) == torch.arange(count)).float().mean()
    right = ((image @ classes.T).argmax(1).numpy() == scenes.labels(factors)).mean()
    assert found >= 0.97
    assert right >= 0.83


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--device", "cpu", *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_the_recorded_scores_are_what_the_script_measures() -> None:
    with safe_open(demo.WEIGHTS, framework="pt") as file:
        recorded = json.loads(file.metadata()["scores"])
    assert recorded["scenes"] >= 1024
    assert recorded["caption_top1"] >= 0.97
    result = run("--evaluate-only", "--scenes", "256")
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    for name in ("caption_top1", "scene_top1", "zero_shot_top1", "wrong_factor_top1"):
        assert measured[name] == pytest.approx(recorded[name], abs=0.05)


@pytest.mark.slow
def test_two_steps_of_training_write_weights_that_load(tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    result = run(
        *("--steps", "2", "--batch-size", "8", "--scenes", "256", "--log-every", "1"),
        *("--out", str(out)),
    )
    assert result.returncode == 0, result.stderr
    assert "step 2/2" in result.stderr
    assert " left" in result.stderr
    assert json.loads(result.stdout)["scenes"] == 256
    assert load_file(out).keys() == load_file(demo.WEIGHTS).keys()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
