"""The edges of a run as rows of the page's table, and what a layer's heads look like."""

from __future__ import annotations

from typing import Any

import numpy as np

from xaikit.artifacts.edges import Edge, key_of
from xaikit.artifacts.results import EdgeEffect
from xaikit.report.page.clusters import cluster_id
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import packed
from xaikit.report.page.testable import testable, untested
from xaikit.statistics.sinks import destination_names


def edge_rows(run: RunParts) -> list[dict[str, Any]]:
    """The circuits' edges, in the order of the run's own ranking.

    The circuit of all layers together comes first, where there is one; then what the layers' own
    circuits hold beside it, each layer's first edge before any second one.
    """
    layers = {parts.layer: parts for parts in run.layers}
    listed: list[tuple[int, int, Edge]] = []
    if run.circuit is not None:
        joint = [edge for edge in run.circuit.paths if edge.layer in layers]
        listed += [(0, edge.layer or 0, edge) for edge in joint]
    for parts in run.layers:
        paths = parts.circuit.paths if parts.circuit is not None else []
        listed += [(1 + rank, parts.layer, edge) for rank, edge in enumerate(paths)]
    listed.sort(key=lambda each: each[0])
    effects = _effects(run)
    rows: dict[tuple[int, int, int, int], dict[str, Any]] = {}
    for _, layer, edge in listed:
        place = (layer, *edge.key)
        if place not in rows:
            row = _row(layers[layer], edge, effects.get(place), len(run.layers))
            rows[place] = {**row, "id": len(rows), "rank": len(rows) + 1}
    return list(rows.values())


def _row(
    parts: LayerParts, edge: Edge, effect: EdgeEffect | None, edited_layers: int
) -> dict[str, Any]:
    tested, target, fit = testable(edge.zscore, edge.pvalue), edge.dst_cluster, parts.fit
    entries = fit.num_images * fit.prototypes.shape[1] * fit.tokens**2 * edited_layers
    return {
        "layer": parts.layer,
        "next": fit.next_layer,
        "cluster": edge.cluster_id,
        "source": cluster_id(parts.layer, edge.cluster_id),
        "head": edge.head,
        "token": edge.dst_token,
        "target": target,
        "targetId": cluster_id(parts.layer, target) if target is not None else None,
        "to": edge.dst_name,
        "kind": edge.dst_kind,
        "weight": edge.weight,
        "contrast": edge.contrast,
        "score": edge.score,
        "z": edge.zscore if tested else None,
        "p": edge.pvalue if tested else None,
        "q": edge.qvalue if tested else None,
        "support": edge.support,
        "cover": edge.support / max(entries, 1),
        "survival": edge.survival,
        "effect": edge.effect,
        "side": edge.side,
        "why": None,
        "live": effect.live_effect if effect else None,
        "liveP": effect.live_pvalue if effect else None,
        "liveQ": effect.live_qvalue if effect else None,
        "alignment": effect.alignment_gain if effect else None,
    }


def _effects(run: RunParts) -> dict[tuple[int, int, int, int], EdgeEffect]:
    """Effects of single edges: of the live model where it was asked, all layers edited last."""
    found: dict[tuple[int, int, int, int], EdgeEffect] = {}
    for parts in run.layers:
        for artefact in (parts.target, parts.intervention):
            for effect in artefact.effects if artefact is not None else []:
                found[parts.layer, *key_of(effect)] = effect
    for effect in run.intervention.effects if run.intervention is not None else []:
        if effect.layer is not None:
            found[effect.layer, *key_of(effect)] = effect
    return found


def layer_record(parts: LayerParts) -> dict[str, Any]:
    """What the page's scripts need of a layer: sizes, prototypes, contrasts and z-scores."""
    fit = parts.fit
    return {
        "layer": parts.layer,
        "next": fit.next_layer,
        "tokens": fit.tokens,
        "prefix": fit.prefix_tokens,
        "prefixKinds": list(fit.prefix_kinds),
        "grid": list(fit.grid),
        "heads": int(fit.prototypes.shape[1]),
        "clusters": parts.features.num_clusters,
        "destination": fit.destination,
        "destinations": destination_names(fit),
        "counts": fit.counts.tolist(),
        "rank": parts.circuit.rank if parts.circuit else None,
        "weight": _by_head(fit.prototypes.numpy()),
        "contrast": _by_head(fit.contrast.numpy()),
        "z": _by_head(np.nan_to_num(fit.edge_zscores.numpy())),
        "untested": packed(untested(parts).astype(np.float64)),
        "pvalues": pvalue_counts(parts),
    }


def _by_head(values: np.ndarray) -> list[dict[str, Any]]:
    """``[K, H, D]`` as one packed ``[K, D]`` a head."""
    return [packed(values[:, head]) for head in range(values.shape[1])]


def pvalue_counts(parts: LayerParts) -> list[int]:
    """Edges by p-value in twenty bins, of those that can be tested."""
    tested = ~untested(parts)
    values = parts.fit.edge_pvalues.numpy()[tested]
    return [int(count) for count in np.histogram(values, bins=20, range=(0.0, 1.0))[0]]
