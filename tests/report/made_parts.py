"""A layer of a run without files: four clusters of twelve images, some of them held out."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit


def made_parts() -> LayerParts:
    """A class token and a row of four patches, edges to tokens; for a test to change."""
    return deepcopy(_made())


@lru_cache
def _made() -> LayerParts:
    logits, labels = slow.random_case(0, B=12, N=5)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4, [1, 3, 8, 9])
    made = fit(trace, features, num_permutations=3)
    chosen = circuit(made, top_k=5)
    return LayerParts(folder=Path("run"), features=features, fit=made, trace=trace, circuit=chosen)


def made_run(*layers: LayerParts) -> RunParts:
    return RunParts(root=Path("run"), layers=list(layers))
