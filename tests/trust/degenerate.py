"""Inputs at the ends of their ranges: each stage ends in finite numbers or in one line."""

from __future__ import annotations

import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from conftest import make_trace
from trust.kit import ended

import xaikit

LOGITS = {
    "noise": torch.randn,
    "zero": torch.zeros,
    "one value": lambda *shape: torch.full(shape, 7.0),
    "tiny": lambda *shape: 1e-30 * torch.randn(shape),
    "huge": lambda *shape: 1e30 * torch.randn(shape),
    "the largest": lambda *shape: torch.full(shape, torch.finfo(torch.float32).max),
    "one outlier": lambda *shape: _with(torch.zeros(shape), 1e20),
    "not a number": lambda *shape: _with(torch.randn(shape), math.nan),
    "infinite": lambda *shape: _with(torch.randn(shape), -math.inf),
    "of the position alone": lambda *shape: torch.randn(shape[1:]).expand(shape).clone(),
}
GATES = {
    "some": lambda *shape: (torch.rand(shape) < 0.4).to(torch.uint8),
    "none": lambda *shape: torch.zeros(shape, dtype=torch.uint8),
    "all": lambda *shape: torch.ones(shape, dtype=torch.uint8),
    "one": lambda *shape: _with(torch.zeros(shape, dtype=torch.uint8), 1),
    "of the position alone": lambda *shape: (
        (torch.rand(shape[1:]) < 0.5).expand(shape).to(torch.uint8).clone()
    ),
}


def _with(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor.view(-1)[tensor.numel() // 2] = value
    return tensor


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Draw so many inputs and options, each from the ends of its range."""
    rng, failures = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(cases):
            given = _drawn(rng)
            found = ended(lambda: _stages(Path(name), given))  # noqa: B023
            if found.failure:
                failures.append(f"{given}: {found.failure}")
    return cases, failures


def _drawn(rng: random.Random) -> dict[str, Any]:
    images = rng.choice((1, 2, 3, 4, 9, 24))
    return {
        "images": images,
        "tokens": rng.choice((1, 2, 3, 7)),
        "heads": rng.choice((1, 2)),
        "logits": rng.choice(list(LOGITS)),
        "gates": rng.choice(list(GATES)),
        "groups": rng.choice((None, "one", "each its own")),
        "seed": rng.choice((0, 1, 2**63 - 1)),
        "num_clusters": rng.choice((1, 2, 3, 40)),
        "sample_tokens": rng.choice((0, 1, 5, 20000)),
        "holdout": rng.choice((0.0, 0.01, 0.5, 0.99)),
        "prefix": rng.choice(("own", "mixed")),
        "destination": rng.choice(("token", "cluster")),
        "num_permutations": rng.choice((1, 2, 19)),
        "null": rng.choice(("auto", "moments", "sampled")),
        "null_block": rng.choice((0, 2, 1000)),
        "rank": rng.choice(("weight", "contrast", "zscore", "energy")),
        "top_k": rng.choice((1, 5, 10**6)),
        "max_qvalue": rng.choice((None, 0.0, 0.05, 1.0)),
        "max_clusters": rng.choice((1, 16, 10**6)),
        "top_n": rng.choice((1, 20, 10**6)),
    }


def _stages(folder: Path, given: dict[str, Any]) -> None:
    """Every stage from a trace on, written and read again."""
    g, count = given, given["images"]
    torch.manual_seed(g["seed"] % 1000)
    shape = (count, g["heads"], g["tokens"], g["tokens"])
    groups = {None: None, "one": ["a"] * count, "each its own": [str(i) for i in range(count)]}
    trace = make_trace(
        LOGITS[g["logits"]](*shape),
        GATES[g["gates"]](count, g["tokens"], 12),
        groups=groups[g["groups"]],
    )

    def options(*names: str) -> dict[str, Any]:
        return {name: g[name] for name in names}

    features = xaikit.cluster(
        trace, **options("num_clusters", "sample_tokens", "seed", "holdout", "prefix")
    )
    names = ("destination", "num_permutations", "null", "null_block", "seed")
    fit = xaikit.fit(trace, features, **options(*names))
    _finite("fit", {"mse": fit.mse, "r2": fit.r2, "prototypes": fit.prototypes.tolist()})
    circuit = xaikit.circuit(fit, **options("rank", "top_k", "max_qvalue"))
    causal = xaikit.causal(
        features,
        fit,
        max_clusters=g["max_clusters"],
        num_permutations=g["num_permutations"],
        seed=g["seed"],
    )
    effects = xaikit.target_causal(
        trace, features, fit, circuit, **options("top_n", "num_permutations", "seed")
    )
    for name, made in (("circuit", circuit), ("causal", causal), ("target", effects)):
        made.save(folder / f"{name}.json")
        _finite(name, json.loads((folder / f"{name}.json").read_bytes()))
    fit.save(folder / "fit.safetensors")
    type(fit).load(folder / "fit.safetensors")


def _finite(where: str, value: Any) -> None:
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            _finite(where, inner)
        elif isinstance(inner, float) and not math.isfinite(inner):
            raise AssertionError(f"{where} holds {inner}")
