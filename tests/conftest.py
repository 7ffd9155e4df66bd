"""Traces of random numbers that tests share."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads that wait for each other make thousands of tiny operations slow on a machine with other
# work; commands that tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# They find this package, and check its shapes too (see shapes.py).
os.environ["PYTHONPATH"] = os.pathsep.join(
    [
        os.path.join(os.path.dirname(__file__), "startup"),
        os.path.dirname(os.path.dirname(__file__)),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
)

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

if os.environ.get("XAIKIT_SHAPES") != "0":
    import shapes  # noqa: F401  from here on every shape in an annotation is executed

from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace, TraceInfo

# A machine with other work is slow now and then, which says nothing of what is tested.
hypothesis.settings.register_profile("xaikit", deadline=None)
hypothesis.settings.load_profile("xaikit")

ORIGIN = Origin(
    model="made-up", pretrained="random", weights_fingerprint="w" * 16, images_fingerprint="i" * 16
)


def make_trace(
    logits: torch.Tensor, gates: torch.Tensor | None = None, *, groups: list[str] | None = None
) -> Trace:
    """A trace in memory around given logits ``[B, H, N, N]``."""
    images, heads, tokens, _ = logits.shape
    if gates is None:
        generator = torch.Generator().manual_seed(0)
        gates = (torch.rand(images, tokens, 12, generator=generator) < 0.4).to(torch.uint8)
    info = TraceInfo(
        provenance=Provenance(origin=ORIGIN, layer=2, next_layer=3),
        images=[f"{i:03d}.png" for i in range(images)],
        groups=groups,
        tokens=tokens,
        heads=heads,
        prefix_kinds=["class token"],
        width=5,
        ffn_width=gates.shape[-1],
        grid=[1, tokens - 1],
    )
    tensors = {
        "h_l": torch.zeros(images, tokens, 5),
        "ffn_gate_l": gates,
        "attn_logits_l1": logits.float(),
        "residual_norms_l1": torch.ones(images, tokens),
    }
    return Trace.from_tensors(info, tensors)


def make_features(
    trace: Trace, labels: torch.Tensor, clusters: int, heldout: list[int] | None = None
) -> Features:
    """Features with given labels ``[B, N]``."""
    heldout = heldout or []
    discovery = [i for i in range(len(trace)) if i not in set(heldout)]
    return Features(
        provenance=trace.provenance.child({}, trace=trace.identity),
        num_clusters=clusters,
        labels=labels,
        centroids=torch.zeros(clusters, trace.info.ffn_width),
        cluster_sizes=torch.bincount(labels.reshape(-1), minlength=clusters),
        cluster_activation_rates=torch.zeros(clusters),
        discovery=discovery,
        heldout=heldout,
        recorded=trace.info.recorded(),
    ).identify()


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two layers of a random model, edges to clusters, with every artefact."""
    from command_line import run

    folder = tmp_path_factory.mktemp("small") / "run"
    code = run(
        *("run-all", "--pretrained", "random", "--max-images", "16", "--num-clusters", "3"),
        *("--num-permutations", "9", "--target-layer", "1,3", "--destination", "cluster"),
        *("--out-dir", str(folder), "--quiet"),
    )
    assert code == 0
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many cases the rows of `trust` tried."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "tried" and report.when == "call":
                    terminalreporter.write_line(str(value))
