"""`target-causal`: what each edge of a circuit contributes to the predicted logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit, Edge, EdgeEffect, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.progress import Progress, silent
from xaikit.statistics.edges import alignment_gain, edge_test
from xaikit.statistics.multiple import permutation_pvalues
from xaikit.statistics.permutations import image_permutations

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TargetCausalOptions:
    """Which edges are tested, and how.

    Attributes
    ----------
    top_n : int
        Edges to test, in the circuit's order.
    num_permutations, seed : int
        Image permutations to sample.
    """

    top_n: int = option(20, "Edges to test, best first.", least=1)
    num_permutations: int = option(200, "Image permutations.", panel="Statistics", least=1)
    seed: int = option(0, "Of everything random.", panel="Running", least=0)


def target_causal(
    trace: Trace,
    features: Features,
    fit: Fit,
    circuit: Circuit,
    options: TargetCausalOptions | None = None,
    *,
    trace_file: str | None = None,
    features_file: str = "",
    fit_file: str = "",
    circuit_file: str = "",
    progress: Progress = silent,
    **given: Any,
) -> TargetCausal:
    """Effects of a circuit's first edges, reading only their columns of the trace.

    Effects use the fit's prototypes; p-values re-estimate them, observed and permuted, on the
    test images (the held-out ones where there are any).

    Parameters
    ----------
    circuit : Circuit
        Of the fit, whose first edges are tested.
    options : TargetCausalOptions, optional
    **given
        Fields of `TargetCausalOptions`, in place of or beside the record.

    Raises
    ------
    UsageError
        Where the parts do not belong together or a number is out of range.
    """
    require_parent(features, "trace", trace, child_name="features")
    images = np.sort(features.test_images or range(len(trace)))
    return edge_effects(
        features,
        fit,
        circuit,
        images=images,
        read=lambda edge: edge_entries(trace, edge, images),
        options=resolve(TargetCausalOptions, options, given),
        trace_file=trace_file or str(trace.path or ""),
        features_file=features_file,
        fit_file=fit_file,
        circuit_file=circuit_file,
        progress=progress,
    )


def edge_effects(
    features: Features,
    fit: Fit,
    circuit: Circuit,
    *,
    images: np.ndarray,
    read: Callable[[Edge], Tensor],
    options: TargetCausalOptions,
    progress: Progress = silent,
    **files: str,
) -> TargetCausal:
    """`target_causal` on given images, wherever their logits come from.

    Parameters
    ----------
    images : Int[ndarray, "image"]
        Indices of the images to test on.
    read : callable
        Logits of an edge's head on those images: of its destination token ``[image, token]``, or
        all ``[image, token, token]``.
    **files : str
        Names of the parts' files, to record.
    """
    require_parent(fit, "features", features, child_name="fit")
    require_parent(circuit, "fit", fit, child_name="circuit")
    o = options
    permutations = image_permutations(len(images), o.num_permutations, o.seed)
    effects = []
    chosen = circuit.paths[: o.top_n]
    for done, edge in enumerate(chosen):
        effects.append(_effect(read(edge), features.labels[images], edge, permutations))
        progress("edges tested", done + 1, len(chosen))
    effects.sort(key=lambda effect: -effect.edge_effect)
    recorded = {**deciding(o), "test_images": len(images)}
    return TargetCausal(
        provenance=circuit.provenance.child(recorded, circuit=circuit.identity),
        **files,
        top_n=o.top_n,
        num_permutations=o.num_permutations,
        seed=o.seed,
        effects=effects,
    ).identify()


def _effect(entries: Tensor, labels: Tensor, edge: Edge, permutations: np.ndarray) -> EdgeEffect:
    sources = labels == edge.cluster_id
    destinations = None if edge.dst_cluster is None else labels == edge.dst_cluster
    members = sources
    if destinations is not None:
        members = sources.unsqueeze(2) & destinations.unsqueeze(1)
    found = edge_test(entries, sources, permutations, destinations)
    observed = torch.tensor([abs(found.weight), found.gain], dtype=torch.float64)
    null = torch.stack([found.null_weights.abs(), found.null_gains], dim=1)
    pvalues = permutation_pvalues(observed, null)
    return EdgeEffect(
        cluster_id=edge.cluster_id,
        head=edge.head,
        dst_token=edge.dst_token,
        dst_cluster=edge.dst_cluster,
        support=edge.support,
        edge_effect=abs(edge.weight),
        edge_pvalue=float(pvalues[0]),
        alignment_gain=alignment_gain(entries, members, edge.weight),
        alignment_pvalue=float(pvalues[1]),
        qvalue=edge.qvalue,
        dst_kind=edge.dst_kind,
        dst_name=edge.dst_name,
    )


def edge_entries(trace: Trace, edge: Edge, images: Sequence[int] | np.ndarray) -> Tensor:
    """Logits of an edge's head at its destination ``[image, token]``, or all ``[.., token]``."""
    if edge.dst_token is not None:
        column = trace.logits(0, len(trace), head=edge.head, dst=edge.dst_token)
        return column[torch.as_tensor(np.asarray(images))]
    return torch.cat([part for _, part in trace.iter_logits(images, head=edge.head)])
