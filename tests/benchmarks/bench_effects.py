"""Fit, causal and target-causal against loops that follow the definitions literally."""

from __future__ import annotations

import time
from typing import Any

import torch
from timing import in_turns, row

from xaikit.artifacts.records import Origin, Provenance
from xaikit.artifacts.results import Circuit
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace, TraceInfo
from xaikit.passes.feed import ATTENTION, Attention, SeenBlock, StoredFeed, Visitor
from xaikit.passes.plan import make_plan
from xaikit.passes.sums import position_means
from xaikit.progress import silent
from xaikit.stages.causal import causal as run_causal
from xaikit.stages.circuit import circuit as run_circuit
from xaikit.stages.fit import fit as run_fit
from xaikit.stages.target_causal import target_causal as run_target_causal
from xaikit.statistics.block_null import EdgeShape
from xaikit.statistics.edge_sums import EdgeSums
from xaikit.statistics.parts import whole_sums
from xaikit.statistics.permutations import image_permutations, one_hot
from xaikit.statistics.sums import Predictions

IMAGES, HEADS, TOKENS, CLUSTERS = 32, 12, 197, 16
"""ViT-B/16 sized."""


def _random() -> tuple[Trace, Features]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, HEADS, TOKENS, TOKENS, generator=generator)
    labels = torch.randint(CLUSTERS, (IMAGES, TOKENS), generator=generator)
    origin = Origin(
        model="random", pretrained="random", weights_fingerprint="", images_fingerprint=""
    )
    info = TraceInfo(
        provenance=Provenance(origin=origin, layer=6, next_layer=7),
        images=[str(i) for i in range(IMAGES)],
        groups=None,
        tokens=TOKENS,
        heads=HEADS,
        prefix_kinds=["class token"],
        width=4,
        ffn_width=8,
        grid=[14, 14],
    )
    tensors = {
        "attn_logits_l1": logits,
        "h_l": torch.zeros(IMAGES, TOKENS, 4),
        "ffn_gate_l": torch.zeros(IMAGES, TOKENS, 8, dtype=torch.uint8),
    }
    trace = Trace.from_tensors(info, tensors)
    features = Features(
        provenance=trace.provenance.child({}, trace=trace.identity),
        recorded=trace.info.recorded(),
        num_clusters=CLUSTERS,
        labels=labels,
        centroids=torch.zeros(CLUSTERS, 8),
        cluster_sizes=torch.bincount(labels.reshape(-1), minlength=CLUSTERS),
        cluster_activation_rates=torch.zeros(CLUSTERS),
        discovery=list(range(IMAGES)),
    ).identify()
    return trace, features


def _parts() -> tuple[Trace, Features, Fit, Circuit]:
    trace, features = _random()
    found = run_fit(trace, features, num_permutations=200)
    return trace, features, found, run_circuit(found, top_k=20)


class _Sums(Visitor):
    """What a fit adds up, without the null."""

    needs = frozenset({ATTENTION})

    def __init__(self, labels: torch.Tensor, sums: EdgeSums) -> None:
        self.labels, self.sums = labels, sums

    def attention(self, block: SeenBlock, attention: Attention) -> None:
        self.sums.add(self.labels[block.images], attention.logits, block.planned.number)


def fit() -> dict[str, Any]:
    """Prototypes, mse, R² and its baselines from sums, against doing all of it row by row."""
    trace, features = _random()
    labels = features.labels

    feed, pair = StoredFeed(trace), (trace.layer, trace.next_layer)
    plan = make_plan({"discovery": list(range(IMAGES))}, 0, 0)
    shape = EdgeShape(CLUSTERS, HEADS, TOKENS, pairs=False)
    # Energies and the null are about it; nothing that is timed here is.
    mean = position_means(feed, plan, [pair], silent)[pair]

    def ours() -> dict[str, float]:
        visitor = _Sums(labels, EdgeSums(shape, mean, null=False))
        feed.visit(plan.blocks, {pair: [visitor]})
        sums = whole_sums(visitor.sums, labels)
        return Predictions(sums, sums).scores()

    images = 4
    # Hundredths of a second each: of three turns, the least is a matter of luck.
    found, reference = in_turns(
        ours, lambda: _fit_by_row(trace.logits(0, images), labels), repeats=20
    )
    notes = f"prototypes, R² and three baselines; {IMAGES} images ours, {images} by row, per image"
    return row(found / IMAGES, reference / images, 1 / 30, notes)


def _fit_by_row(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Contract, definitions 1 and 2 and statistics 5, in loops over rows ``(b, i)``."""
    logits = logits.double()
    images = len(logits)
    rows = [(b, i, int(labels[b, i])) for b in range(images) for i in range(TOKENS)]
    sums = torch.zeros(CLUSTERS, HEADS, TOKENS, dtype=torch.float64)
    counts = torch.zeros(CLUSTERS, dtype=torch.float64)
    position = torch.zeros(HEADS, TOKENS, TOKENS, dtype=torch.float64)
    residuals = torch.zeros_like(sums)
    for b, i, k in rows:
        sums[k] += logits[b, :, i]
        counts[k] += 1
        position[:, i] += logits[b, :, i] / images
    prototypes = sums / counts[:, None, None]
    mean = sums.sum(0) / counts.sum()
    for b, i, k in rows:
        residuals[k] += (logits[b, :, i] - position[:, i]) / counts[k]
    errors = dict.fromkeys(("var", "r2", "mean", "position", "position_cluster"), 0.0)
    for b, i, k in rows:
        predictions = {
            "var": mean.mean(),
            "r2": prototypes[k],
            "mean": mean,
            "position": position[:, i],
            "position_cluster": position[:, i] + residuals[k],
        }
        for name, predicted in predictions.items():
            errors[name] += float(((logits[b, :, i] - predicted) ** 2).sum())
    return {name: 1 - error / errors["var"] for name, error in errors.items()}


def causal() -> dict[str, Any]:
    """Closed forms, against building every intervention's predictions ``[B, H, N, N]``."""
    _, features, found, _ = _parts()

    def materialised() -> None:
        prototypes, labels = found.prototypes, features.labels
        base = prototypes[labels]
        k = 0
        zeroed = prototypes.clone()
        zeroed[k] = 0
        rows = labels == k
        _ = (zeroed[labels] - base).abs()[rows].mean()
        injected = base.clone()
        injected[~rows] = prototypes[k]
        _ = (injected - base).abs()[~rows].mean()

    def closed() -> None:
        run_causal(features, found, num_permutations=200)

    ours, one_cluster = in_turns(closed, materialised)
    runs = CLUSTERS * 201
    notes = f"{CLUSTERS} clusters, 200 permutations; reference: one cluster × {runs} runs"
    return row(ours, one_cluster * runs, 1 / 1000, notes)


def target_causal() -> dict[str, Any]:
    """Reading one column an edge, against rebuilding all predictions for each permutation."""
    trace, features, found, edges = _parts()
    labels, logits = features.labels, trace.attn_logits_l1

    def ours() -> None:
        run_target_causal(trace, features, found, edges, top_n=20, num_permutations=200)

    start = time.perf_counter()
    ours()
    seconds = time.perf_counter() - start
    edge = edges.paths[0]
    order = torch.from_numpy(image_permutations(IMAGES, 1, 0)[0])
    start = time.perf_counter()
    permuted = labels[order]
    maps = one_hot(permuted, CLUSTERS)
    totals = torch.einsum("bik,bhij->khj", maps, logits)
    prototypes = totals / maps.sum((0, 1))[:, None, None]
    predicted = prototypes[permuted].transpose(1, 2)
    gain = logits.abs() - (logits - predicted).abs()
    _ = gain[:, edge.head, :, edge.destination][permuted == edge.cluster_id].mean()
    once = time.perf_counter() - start
    notes = "20 edges, 200 permutations; reference: one rebuild × 20 × 201"
    return row(seconds, once * 20 * 201, 1 / 50, notes)
