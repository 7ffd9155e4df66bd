"""Wrong input: one clear line, the right exit status, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from xaikit.cli import main

DEMO = ("--pretrained", "random")

CASES: dict[str, tuple[list[str], int, str]] = {
    "unknown command": (["trase"], 2, "trase"),
    "unknown option": (["trace", "--colour"], 2, "--colour"),
    "no number": (["trace", "--max-images", "many"], 2, "--max-images"),
    "unknown model": (
        ["trace", "--model", "ViT-Z-9", *DEMO, "--images", "pictures"],
        2,
        "ViT-Z-9",
    ),
    "refused model": (["trace", "--model", "RN50", *DEMO, "--images", "pictures"], 1, "RN50"),
    "no weights": (["trace", "--model", "ViT-B-32", "--images", "pictures"], 2, "random"),
    "unknown tag": (
        ["trace", "--model", "ViT-B-32", "--pretrained", "nobody", "--images", "pictures"],
        2,
        "nobody",
    ),
    "missing checkpoint": (
        [
            "trace",
            "--model",
            "ViT-B-32",
            "--pretrained",
            "gone.safetensors",
            "--images",
            "pictures",
        ],
        2,
        "gone.safetensors",
    ),
    "no images": (["trace", "--model", "ViT-B-32", *DEMO], 2, "--images"),
    "missing folder": (["trace", *DEMO, "--images", "nowhere"], 2, "nowhere"),
    "empty folder": (["trace", *DEMO, "--images", "empty"], 2, "empty"),
    "two inputs": (
        ["trace", *DEMO, "--images", "pictures", "--imagenet-root", "pictures"],
        2,
        "--imagenet-root",
    ),
    "no imagenet": (["trace", *DEMO, "--imagenet-root", "pictures"], 2, "pictures"),
    "no usable image": (["trace", *DEMO, "--images", "broken"], 1, "broken.png"),
    "strict": (["trace", *DEMO, "--images", "mixed", "--strict"], 1, "broken.png"),
    "zero images": (["trace", *DEMO, "--max-images", "0"], 2, "--max-images"),
    "layer too high": (["trace", *DEMO, "--target-layer", "99"], 2, "--target-layer 99"),
    "last layer": (["trace", *DEMO, "--target-layer", "5"], 2, "--target-layer 4"),
    "attention before": (
        ["trace", *DEMO, "--target-layer", "3", "--next-attn-layer", "2"],
        2,
        "--next-attn-layer 2",
    ),
    "batch of none": (["trace", *DEMO, "--batch-size", "0"], 2, "--batch-size"),
    "no device": (["trace", *DEMO, "--device", "abacus"], 2, "abacus"),
    "mean": (["trace", *DEMO, "--mean", "0.5"], 2, "--mean"),
    "out is a folder": (["trace", *DEMO, "--max-images", "2", "--out", "pictures"], 2, "pictures"),
    "no trace": (["cluster"], 2, "trace.safetensors"),
    "trace is something else": (["cluster", "--trace", "notes.txt"], 2, "notes.txt"),
    "no features": (["fit", "--trace", "trace.safetensors"], 2, "trace.safetensors"),
    "no fit": (["circuit"], 2, "fit.safetensors"),
    "wrong file": (["target-causal", "--circuit", "notes.txt"], 2, "safetensors"),
    "against nothing": (
        ["run-all", *DEMO, "--against", "a"],
        2,
        "--against TEXT needs --toward TEXT",
    ),
    "no such class": (
        [
            *("run-all", "--model", "timm/vit_tiny_patch16_224", *DEMO),
            *("--images", "pictures", "--toward", "godfish"),
        ],
        2,
        "--toward godfish: is no class of the head",
    ),
    "a folder without a prompt": (
        ["run-all", *DEMO, "--images", "kinds", "--labels", "labels.json"],
        2,
        "--labels has no prompt for the folder cats",
    ),
    "no such ranking": (["run-all", "--rank", "best"], 2, "'--rank': 'best' is not one of"),
    "no such labels": (["run-all", *DEMO, "--labels", "gone.txt"], 2, "--labels gone.txt"),
    "layers": (["run-all", *DEMO, "--target-layer", "one"], 2, "--target-layer one"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good, broken and no pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "broken", "mixed", "empty"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "pictures" / "red.png")
    Image.new("RGB", (64, 64), (30, 30, 200)).save(tmp_path / "mixed" / "blue.png")
    for name in ("broken", "mixed"):
        (tmp_path / name / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "notes.txt").write_text("nothing to see")
    (tmp_path / "labels.json").write_text('{"dogs": "a dog"}')
    (tmp_path / "kinds" / "cats").mkdir(parents=True)
    Image.new("RGB", (64, 64), (30, 200, 30)).save(tmp_path / "kinds" / "cats" / "green.png")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_status(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, status, named = CASES[case]
    before = sorted(here.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert ended.value.code == status, errors
    assert len(errors) == 1
    assert named in errors[0]
    assert sorted(here.rglob("*")) == before


def test_out_of_range_numbers_of_the_analysis(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "-q"])
        return int(ended.value.code or 0)

    assert status("trace", *DEMO, "--max-images", "6") == 0
    assert status("cluster", "--num-clusters", "0") == 2
    assert status("cluster", "--holdout", "1.5") == 2
    assert status("cluster", "--num-clusters", "3") == 0
    assert status("fit", "--num-permutations", "0") == 2
    assert status("fit", "--num-permutations", "9") == 0
    assert status("circuit", "--rank", "beauty") == 2
    assert status("circuit", "--top-k", "0") == 2
    assert status("causal", "--num-permutations", "500") == 2
    assert "fit --num-permutations 500" in capsys.readouterr().err
    damaged = here / "trace.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert status("cluster") == 2
    assert "truncated" in capsys.readouterr().err


@pytest.mark.parametrize("written", ["open_clip_config.json", "config.json"])
def test_names_in_a_config_reach_the_terminal_as_text(written, tmp_path, capsys):
    odd = "vit\x1b[31m\u202e<b>[red]$x$\u0007"
    fields = {
        "open_clip_config.json": {"model_cfg": {"embed_dim": 8, "vision_cfg": {odd: odd}}},
        "config.json": {"architecture": odd, "model_type": odd, "architectures": [odd]},
    }[written]
    (tmp_path / written).write_text(json.dumps(fields))
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    given = ["--images", str(tmp_path / "pictures"), "--out", str(tmp_path / "t.safetensors")]
    with pytest.raises(SystemExit) as ended:
        main(["trace", "--model", f"local-dir:{tmp_path}", *given])
    said = "".join(capsys.readouterr())
    assert ended.value.code in (1, 2)
    assert said.count("\n") == 1
    assert not {"\x1b", "\u202e", "\u0007"} & set(said)
