"""Find and test attention circuits in CLIP vision transformers.

One function per stage, the artefact types, and what opens models and images. Names are looked
up when first used, so importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaikit.artifacts.results import Causal, Circuit, Edge, Intervention, TargetCausal
    from xaikit.artifacts.studies import Baselines, Stability
    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.artifacts.trace_writer import Storage
    from xaikit.errors import UsageError, XaikitError
    from xaikit.images import open_images
    from xaikit.run.run_all import run_all
    from xaikit.stages.baselines import baselines
    from xaikit.stages.bootstrap import bootstrap
    from xaikit.stages.causal import causal
    from xaikit.stages.circuit import circuit
    from xaikit.stages.cluster import cluster
    from xaikit.stages.fit import fit
    from xaikit.stages.intervene import intervene
    from xaikit.stages.stability import stability
    from xaikit.stages.target_causal import target_causal
    from xaikit.stages.trace import trace
    from xaikit.towers import Tower, list_models, load_tower

_HOMES = {
    "Causal": "artifacts.results",
    "Circuit": "artifacts.results",
    "Edge": "artifacts.results",
    "Intervention": "artifacts.results",
    "TargetCausal": "artifacts.results",
    "Baselines": "artifacts.studies",
    "Stability": "artifacts.studies",
    "Features": "artifacts.tensors",
    "Fit": "artifacts.tensors",
    "Trace": "artifacts.trace",
    "Storage": "artifacts.trace_writer",
    "UsageError": "errors",
    "XaikitError": "errors",
    "open_images": "images",
    "baselines": "stages.baselines",
    "bootstrap": "stages.bootstrap",
    "causal": "stages.causal",
    "circuit": "stages.circuit",
    "cluster": "stages.cluster",
    "fit": "stages.fit",
    "intervene": "stages.intervene",
    "run_all": "run.run_all",
    "stability": "stages.stability",
    "target_causal": "stages.target_causal",
    "trace": "stages.trace",
    "Tower": "towers",
    "list_models": "towers",
    "load_tower": "towers",
}

__all__ = [
    "Baselines",
    "Causal",
    "Circuit",
    "Edge",
    "Features",
    "Fit",
    "Intervention",
    "Stability",
    "Storage",
    "TargetCausal",
    "Tower",
    "Trace",
    "UsageError",
    "XaikitError",
    "baselines",
    "bootstrap",
    "causal",
    "circuit",
    "cluster",
    "fit",
    "intervene",
    "list_models",
    "load_tower",
    "open_images",
    "run_all",
    "stability",
    "target_causal",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
