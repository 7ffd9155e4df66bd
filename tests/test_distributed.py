"""Two processes on one machine, against one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import command_line
import pytest
import torch

from xaikit.artifacts.results import Circuit
from xaikit.artifacts.trace import Trace
from xaikit.distributed import World, local_device
from xaikit.images.scenes import SceneSource
from xaikit.launcher import launched
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

IMAGES = 40
SETTINGS = {
    "recipe": "seed",
    "holdout": 0.5,
    "max_images": IMAGES,
    "batch_size": 8,
    "null_block": 8,
    "num_clusters": 5,
    "sample_tokens": 800,
    "num_permutations": 20,
    "top_n": 5,
    "intervene": False,
}
FLAGS = [
    word
    for name, value in SETTINGS.items()
    if name != "intervene"
    for word in (f"--{name.replace('_', '-')}", str(value))
]
FLAGS += ["--no-intervene"]

# Passes are kept one by one; the second process ends without a word in its second one.
DYING = """
import os
from xaikit.cli import main
from xaikit.passes import checkpoint
from xaikit.passes.pair_sums import PairSums

attention = PairSums.attention
seen = []

def dying(self, block, found):
    seen.append(block)
    if os.environ["RANK"] == "1" and len(seen) == 3:
        os._exit(9)
    attention(self, block, found)

PairSums.attention = dying
checkpoint.SECONDS = 0.0
checkpoint._SHARE = 0.0
main()
"""


def two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Start two processes with torchrun."""
    root = Path(__file__).parents[1]
    known = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", *arguments),
        ],
        cwd=root,
        env={**known, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def tower():
    return load_tower("xaikit-demo", "random")


@pytest.fixture(scope="module")
def source():
    return SceneSource(IMAGES, 0)


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def artefacts(folder):
    names = ("features.safetensors", "fit.safetensors", "circuit.json", "causal.json")
    return {
        f"{layer}/{name}": (folder / layer / name).read_bytes()
        for layer in ("layer_1", "layer_2")
        for name in (*names, "target_causal.json")
    }


@pytest.mark.slow
def test_streaming_survives_a_dead_process_and_ends_as_one_process_does(tmp_path):
    driver = tmp_path / "dying.py"
    driver.write_text(DYING)
    flags = ["run-all", "--stream", "--pretrained", "random", "--target-layer", "1,2", *FLAGS]
    out = tmp_path / "two"
    # Seconds between two looks of torchrun, which stops the other process at once when it sees one
    # dead: time to come to where it waits for it, and to say so.
    looks = ("--monitor-interval", "5")
    died = two_processes(*looks, str(driver), *flags, "--out-dir", str(out))
    assert died.returncode != 0
    said = [line for line in died.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1, died.stderr
    assert "another process of this run ended" in said[0]
    assert not died.stdout
    kept = sorted(path.name for path in (out / "stream-state").iterdir())
    assert [name for name in kept if name.startswith("sums")] == [
        "sums-1-0-of-2.safetensors",
        "sums-1-1-of-2.safetensors",
    ]

    resumed = two_processes("-m", "xaikit", *flags, "--out-dir", str(out))
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("everything is in") == 1
    assert not (out / "stream-state").exists()
    stored = two_processes(
        *("-m", "xaikit", "run-all", "--pretrained", "random", "--target-layer", "1,2"),
        *(*FLAGS, "--out-dir", str(tmp_path / "stored")),
    )
    assert stored.returncode == 0, stored.stderr
    # Two processes, streamed and stored, and one process: the same bytes.
    assert artefacts(out) == artefacts(tmp_path / "stored")
    one = tmp_path / "one"
    command = [sys.executable, "-m", "xaikit", *flags, "--shard-size", "256", "--out-dir", str(one)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert artefacts(out) == artefacts(one)


@pytest.mark.slow
def test_guided_clusters_and_groups_of_two_processes_are_those_of_one(source, tmp_path):
    flags = ["run-all", "--pretrained", "random", "--target-layer", "1,2", *FLAGS]
    flags += ["--method", "guided", "--prefix", "own", "--destination", "cluster"]
    groups = tmp_path / "groups.csv"
    rows = [f"{name},{'odd' if row % 2 else 'even'}" for row, name in enumerate(source.ids)]
    groups.write_text("\n".join(rows))
    flags += ["--group", str(groups), "--toward", "top red circle"]
    two, one = tmp_path / "two", tmp_path / "one"
    made = two_processes("-m", "xaikit", *flags, "--stream", "--out-dir", str(two))
    assert made.returncode == 0, made.stderr
    command = [sys.executable, "-m", "xaikit", *flags, "--shard-size", "256", "--out-dir", str(one)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert artefacts(two) == artefacts(one)
    for name in ("groups.json", "circuit.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    assert Circuit.load(two / "circuit.json").objective["toward"] == "top red circle"


@pytest.mark.slow
def test_a_trace_is_written_by_two_processes_under_one_index(tower, source, tmp_path):
    out = tmp_path / "trace"
    made = two_processes(
        *("-m", "xaikit", "trace", "--pretrained", "random", "--target-layer", "2"),
        *("--max-images", str(IMAGES), "--batch-size", "8", "--shard-size", "8"),
        *("--out", str(out), "--json"),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.count('"trace"') == 1
    found = Trace.load(out)
    whole = trace_layers(tower, source, [(2, 3)], batch_size=8)[0]
    assert found.images == whole.images == source.ids
    assert found.identity == whole.identity
    assert len(list(out.glob("part-1-of-2-shard-*.safetensors"))) == 3
    close(found.attn_logits_l1, whole.attn_logits_l1)
    assert torch.equal(found.ffn_gate_l, whole.ffn_gate_l)


def test_one_process_needs_no_other():
    world = World()
    tensors = {"a": torch.arange(3)}
    assert world.leads
    assert world.broadcast(tensors) == tensors
    assert world.gather(tensors) == [tensors]
    total = torch.ones(2)
    world.all_reduce([total])
    assert total.tolist() == [1.0, 1.0]
    world.barrier()


def test_the_launcher_s_environment_is_read(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == (0, 1)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert launched() == (0, 1)
    assert local_device("cuda") == "cuda"
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched() == (3, 8)
    assert local_device("cuda") == "cuda:1"
    assert local_device("cuda:0") == "cuda:0"
    assert local_device("cpu") == "cpu"


@pytest.mark.parametrize(
    "given",
    [
        {"RANK": "0", "WORLD_SIZE": "8"},
        {"RANK": "3", "WORLD_SIZE": "8"},
        {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "node1"},
        {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": " ", "MASTER_PORT": "1"},
        {"RANK": "8", "WORLD_SIZE": "8", "MASTER_ADDR": "node1", "MASTER_PORT": "1"},
        {"RANK": "-1", "WORLD_SIZE": "8", "MASTER_ADDR": "node1", "MASTER_PORT": "1"},
        {"RANK": "one", "WORLD_SIZE": "two"},
        {"WORLD_SIZE": "2"},
        {"RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "1"},
    ],
)
def test_ranks_without_a_launcher_are_one_line_on_every_rank(monkeypatch, capsys, given):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert command_line.run("trace", "--images", "absent") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(f"{name}={value}" in said for name, value in given.items() if "MASTER" not in name)
    assert "torchrun" in said
    assert "unset" in said
    assert command_line.run("--help") == 0


@pytest.mark.parametrize("given", [{"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "0"}, {"RANK": ""}])
def test_one_process_of_one_needs_no_launcher(monkeypatch, given):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert launched() == (0, 1)
