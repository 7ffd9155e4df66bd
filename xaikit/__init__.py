"""Find and test attention circuits in CLIP vision transformers.

One function per stage, the artefact types, and what opens models and images. Names are looked
up when first used, so importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xaikit.machine import share_processors

if TYPE_CHECKING:
    from xaikit.artifacts.edges import Edge, EdgeSpace
    from xaikit.artifacts.explanation import Explanation
    from xaikit.artifacts.graph import Graph
    from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
    from xaikit.artifacts.storage import Storage
    from xaikit.artifacts.studies import Baselines, ClusterSweep, Stability
    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.errors import OptionError, UsageError, XaikitError
    from xaikit.images import open_images
    from xaikit.interventions.classifiers import classifier_for
    from xaikit.run.options import Options
    from xaikit.run.run_all import run_all
    from xaikit.stages.baselines import BaselinesOptions, baselines
    from xaikit.stages.bootstrap import BootstrapOptions, bootstrap
    from xaikit.stages.causal import CausalOptions, causal
    from xaikit.stages.choose import choose_clusters
    from xaikit.stages.circuit import CircuitOptions, circuit
    from xaikit.stages.cluster import ClusterOptions, cluster
    from xaikit.stages.explain import ExplainOptions, explain
    from xaikit.stages.export import export_run
    from xaikit.stages.fit import FitOptions, fit
    from xaikit.stages.graph import GraphLayer, GraphOptions, graph
    from xaikit.stages.intervene import InterveneOptions, intervene
    from xaikit.stages.stability import StabilityOptions, stability
    from xaikit.stages.target_causal import TargetCausalOptions, target_causal
    from xaikit.stages.trace import TraceOptions, trace
    from xaikit.towers import Tower, list_models, load_tower

# Before anything imports torch, which reads this once.
share_processors()

_HOMES = {
    "Edge": "artifacts.edges",
    "EdgeSpace": "artifacts.edges",
    "Explanation": "artifacts.explanation",
    "Graph": "artifacts.graph",
    "Causal": "artifacts.results",
    "Circuit": "artifacts.results",
    "Intervention": "artifacts.results",
    "TargetCausal": "artifacts.results",
    "Baselines": "artifacts.studies",
    "ClusterSweep": "artifacts.studies",
    "Stability": "artifacts.studies",
    "Features": "artifacts.tensors",
    "Fit": "artifacts.tensors",
    "Trace": "artifacts.trace",
    "Storage": "artifacts.storage",
    "OptionError": "errors",
    "UsageError": "errors",
    "XaikitError": "errors",
    "open_images": "images",
    "classifier_for": "interventions.classifiers",
    "Options": "run.options",
    "run_all": "run.run_all",
    "BaselinesOptions": "stages.baselines",
    "baselines": "stages.baselines",
    "BootstrapOptions": "stages.bootstrap",
    "bootstrap": "stages.bootstrap",
    "CausalOptions": "stages.causal",
    "causal": "stages.causal",
    "CircuitOptions": "stages.circuit",
    "circuit": "stages.circuit",
    "choose_clusters": "stages.choose",
    "ClusterOptions": "stages.cluster",
    "cluster": "stages.cluster",
    "ExplainOptions": "stages.explain",
    "explain": "stages.explain",
    "export_run": "stages.export",
    "FitOptions": "stages.fit",
    "fit": "stages.fit",
    "GraphLayer": "stages.graph",
    "GraphOptions": "stages.graph",
    "graph": "stages.graph",
    "InterveneOptions": "stages.intervene",
    "intervene": "stages.intervene",
    "StabilityOptions": "stages.stability",
    "stability": "stages.stability",
    "TargetCausalOptions": "stages.target_causal",
    "target_causal": "stages.target_causal",
    "TraceOptions": "stages.trace",
    "trace": "stages.trace",
    "Tower": "towers",
    "list_models": "towers",
    "load_tower": "towers",
}

__all__ = [
    "Baselines",
    "BaselinesOptions",
    "BootstrapOptions",
    "Causal",
    "CausalOptions",
    "Circuit",
    "CircuitOptions",
    "ClusterOptions",
    "ClusterSweep",
    "Edge",
    "EdgeSpace",
    "ExplainOptions",
    "Explanation",
    "Features",
    "Fit",
    "FitOptions",
    "Graph",
    "GraphLayer",
    "GraphOptions",
    "InterveneOptions",
    "Intervention",
    "OptionError",
    "Options",
    "Stability",
    "StabilityOptions",
    "Storage",
    "TargetCausal",
    "TargetCausalOptions",
    "Tower",
    "Trace",
    "TraceOptions",
    "UsageError",
    "XaikitError",
    "baselines",
    "bootstrap",
    "causal",
    "choose_clusters",
    "circuit",
    "classifier_for",
    "cluster",
    "explain",
    "export_run",
    "fit",
    "graph",
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
