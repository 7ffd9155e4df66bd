"""`target-causal`: what each edge of a circuit contributes to the predicted logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit, Edge, EdgeEffect, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent
from xaikit.statistics.edges import alignment_gain, edge_test
from xaikit.statistics.multiple import permutation_pvalues
from xaikit.statistics.permutations import image_permutations

if TYPE_CHECKING:
    from torch import Tensor


def target_causal(
    trace: Trace,
    features: Features,
    fit: Fit,
    circuit: Circuit,
    *,
    top_n: int = 20,
    num_permutations: int = 200,
    seed: int = 0,
    trace_file: str | None = None,
    features_file: str = "",
    fit_file: str = "",
    circuit_file: str = "",
    progress: Progress = silent,
) -> TargetCausal:
    """Effects of a circuit's first edges, reading only their columns of the trace.

    Effects use the fit's prototypes; p-values re-estimate them, observed and permuted, on the
    test images (the held-out ones where there are any).

    Parameters
    ----------
    top_n : int
        Edges to test, in the circuit's order.
    num_permutations, seed : int
        Image permutations to sample.

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
        top_n=top_n,
        num_permutations=num_permutations,
        seed=seed,
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
    top_n: int,
    num_permutations: int,
    seed: int,
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
    for name, value in (("--top-n", top_n), ("--num-permutations", num_permutations)):
        if value < 1:
            raise UsageError(f"{name} {value} is not a positive number")
    permutations = image_permutations(len(images), num_permutations, seed)
    effects = []
    chosen = circuit.paths[:top_n]
    for done, edge in enumerate(chosen):
        effects.append(_effect(read(edge), features.labels[images], edge, permutations))
        progress("edges tested", done + 1, len(chosen))
    effects.sort(key=lambda effect: -effect.edge_effect)
    options = {
        "top_n": top_n,
        "num_permutations": num_permutations,
        "seed": seed,
        "test_images": len(images),
    }
    return TargetCausal(
        provenance=circuit.provenance.child(options, circuit=circuit.identity),
        **files,
        top_n=top_n,
        num_permutations=num_permutations,
        seed=seed,
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
