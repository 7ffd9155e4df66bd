"""What is said of weights on the command line, and that later commands load them alike."""

from __future__ import annotations

import json

import pytest
import torch
from command_line import run
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small CLIP in a file that says nothing of itself, and eight images."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (tmp_path / "m.json").write_text(json.dumps(CONFIG))
    save_file(CLIP(**CONFIG).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "photos").mkdir()
    for number in range(8):
        noise = torch.randint(0, 255, (20, 24, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    return ["--model", "m.json", "--pretrained", "w.safetensors"]


GIVEN = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]


def test_what_is_not_known_is_a_warning_with_flags(model, capsys):
    assert run("trace", *model, "--images", "photos", "--quiet") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: m.json with w.safetensors: it is not known")
    assert line.endswith("Otherwise pass --mean, --std")
    assert run("trace", *model, "--images", "photos", "--quiet", *GIVEN) == 0
    assert capsys.readouterr().err == ""


def test_later_commands_run_the_activation_that_was_traced(model, capsys):
    images = ["--images", "photos", "--quiet"]
    assert run("trace", *model, *images, *GIVEN, "--quick-gelu") == 0
    assert run("cluster", "--num-clusters", "3", "--quiet") == 0
    assert run("fit", "--quiet") == 0
    assert run("circuit", "--rank", "reach", "--quiet") == 0
    capsys.readouterr()
    assert run("circuit", "--rank", "reach", "--quiet", "--no-quick-gelu") == 2
    assert "weights" in capsys.readouterr().err
