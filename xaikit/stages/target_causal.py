"""`target-causal`: what each edge of a circuit contributes to the predicted logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import file_of, require_parent
from xaikit.artifacts.results import Circuit, EdgeEffect, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.passes.columns import Columns, column_of, tested_images
from xaikit.passes.feed import StoredFeed, chunks
from xaikit.progress import Progress, silent
from xaikit.statistics.edges import alignment_gain, edge_test
from xaikit.statistics.multiple import permutation_pvalues
from xaikit.statistics.permutations import image_permutations

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.passes.plan import PlannedBlock

REVISION = 3
"""Raised where the same circuit and options give other effects than before."""
_CHUNK = 32


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
    progress: Progress = silent,
    **given: Any,
) -> TargetCausal:
    """Effects of a circuit's first edges, reading only their columns of the trace.

    Effects use the fit's prototypes; p-values re-estimate them, observed and permuted, on the
    test images (the held-out ones where there are any; of many images some, see
    `xaikit.passes.columns.tested_images`).

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
    o = resolve(TargetCausalOptions, options, given)
    pair = (trace.layer, trace.next_layer)
    test = EdgeTests(features, fit, circuit, trace.info, o)
    StoredFeed(trace).visit(test.blocks(), {pair: [test.columns]}, what="test images read again")
    return test.effects(progress)


class EdgeTests:
    """The tests of a circuit's first edges: what they read, and what follows from it.

    Attributes
    ----------
    images : Int[ndarray, "image"]
        Used images that are tested.
    columns : Columns
        To be shown `blocks`.
    """

    def __init__(
        self,
        features: Features,
        fit: Fit,
        circuit: Circuit,
        info: TraceInfo,
        options: TargetCausalOptions,
    ) -> None:
        require_parent(fit, "features", features, child_name="fit")
        require_parent(circuit, "fit", fit, child_name="circuit")
        self.features, self.fit, self.circuit = features, fit, circuit
        self.options = options
        wanted = [column_of(edge) for edge in circuit.paths[: options.top_n]]
        images = features.test_images or range(len(features.labels))
        self.images = tested_images(images, wanted, info.tokens, options.seed)
        self.candidates = info.candidate_positions()[self.images]
        self.columns = Columns(wanted, self.candidates)

    def blocks(self) -> list[PlannedBlock]:
        """What the columns are read from."""
        return chunks(self.candidates, _CHUNK)

    def effects(self, progress: Progress = silent) -> TargetCausal:
        """The edges' effects, once the columns were shown their blocks."""
        o = self.options
        labels = self.features.labels[torch.from_numpy(self.images)]
        permutations = image_permutations(len(self.images), o.num_permutations, o.seed)
        found = []
        chosen = self.circuit.paths[: o.top_n]
        for done, edge in enumerate(chosen):
            effect = _effect(self.columns.of(edge), labels, edge, permutations)
            if not self.fit.testable:
                effect = replace(effect, edge_pvalue=None, alignment_pvalue=None)
            found.append(effect)
            progress("edges tested", done + 1, len(chosen))
        found.sort(key=lambda effect: -effect.edge_effect)
        recorded = {**deciding(o), "test_images": len(self.images)}
        circuit = self.circuit
        return TargetCausal(
            provenance=circuit.provenance.child(recorded, circuit=circuit.identity),
            trace_file=self.features.trace_file,
            features_file=file_of(self.features),
            fit_file=file_of(self.fit),
            circuit_file=file_of(circuit),
            top_n=o.top_n,
            num_permutations=o.num_permutations,
            seed=o.seed,
            effects=found,
            num_test_images=len(self.images),
            heldout=bool(self.features.heldout),
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
        testable=edge.testable,
        dst_kind=edge.dst_kind,
        src_name=edge.src_name,
        dst_name=edge.dst_name,
    )
