"""What the page says of each cluster: size, place, members, known factor and effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xaikit.artifacts.tokens import cluster_kind, token_name
from xaikit.report.page.members import Member, members, places
from xaikit.report.page.parts import LayerParts
from xaikit.report.page.pictures import Pictures, packed
from xaikit.report.page.testable import untested
from xaikit.statistics.sinks import sink_tokens


def cluster_id(layer: int, cluster: int) -> str:
    """A node of the graph, ``<layer>.<cluster>``."""
    return f"{layer}.{cluster}"


def kind_of(parts: LayerParts, cluster: int) -> str:
    """What a cluster of prefix tokens alone is, such as ``class token``; empty for the others."""
    return cluster_kind(cluster, parts.features.num_clusters, parts.features.kinds)


def spoken(card: Mapping[str, Any], several: bool) -> str:
    """A cluster in a sentence: by what it is, or by its number and the word that holds of it."""
    number = card["id"] if several else str(card["cluster"])
    if card["kind"]:
        return f"the {card['kind']}" + (f" ({number})" if several else "")
    words = card["words"]
    return f"cluster {number}" + (f" (“{words['word']}”)" if words and words["holds"] else "")


def cluster_cards(parts: LayerParts, pictures: Pictures) -> list[dict[str, Any]]:
    """A record for each cluster of a layer that holds tokens, largest first."""
    features = parts.features
    labels = features.labels.numpy()
    share = places(labels, features.num_clusters)
    picked = members(parts)
    sizes = features.cluster_sizes.tolist()
    effects = _effects(parts)
    cards = []
    for cluster in np.argsort([-size for size in sizes], kind="stable").tolist():
        if not sizes[cluster]:
            continue
        found = picked[cluster]
        cards.append(
            {
                "id": cluster_id(parts.layer, cluster),
                "layer": parts.layer,
                "cluster": cluster,
                "kind": kind_of(parts, cluster),
                "size": sizes[cluster],
                "share": sizes[cluster] / max(sum(sizes), 1),
                "rate": float(features.cluster_activation_rates[cluster]),
                "images": float((labels == cluster).any(1).mean()),
                "notes": _notes(parts, cluster, share[cluster]),
                "where": _raster(parts, share[cluster]),
                "central": _tiles(parts, pictures, found.central),
                "random": _tiles(parts, pictures, found.random),
                "words": None,
                "factor": None,
                **effects.get(cluster, {}),
            }
        )
    return cards


def _raster(parts: LayerParts, share: np.ndarray) -> dict[str, Any] | None:
    grid, prefix = parts.fit.grid, parts.fit.prefix_tokens
    patches = share[prefix:]
    if len(grid) != 2 or grid[0] * grid[1] != len(patches):
        return None
    return {**packed(patches), "grid": list(grid)}


def _notes(parts: LayerParts, cluster: int, share: np.ndarray) -> list[str]:
    """What to know of a cluster before believing anything of it."""
    notes = []
    prefix, named = parts.fit.prefix_tokens, (parts.fit.prefix_kinds, parts.fit.grid)
    held = [token_name(t, *named) for t in range(prefix) if share[t] >= 0.5]
    if held:
        alone = share[prefix:].max(initial=0.0) == 0.0
        notes.append(f"holds the {' and the '.join(held)}{' and nothing else' if alone else ''}")
    if np.isin(share, (0.0, 1.0)).all():
        # Edges that end at clusters have a test where those move.
        none = bool(untested(parts)[cluster].all())
        tests = ": its edges cannot be tested" if none else ""
        notes.append(f"sits at the same tokens in every image{tests}")
    sinks = sink_tokens(parts.fit.token_norms).numpy()
    if len(sinks) == len(share) and sinks[prefix:].any():
        part = share[prefix:][sinks[prefix:]].sum() / max(share.sum(), 1e-12)
        if part >= 0.25:
            notes.append(f"{part:.0%} of it are sink tokens (of high norm)")
    return notes


def _tiles(
    parts: LayerParts, pictures: Pictures, chosen: Sequence[Member]
) -> list[dict[str, str | bool]]:
    grid = (parts.fit.grid[0], parts.fit.grid[1]) if len(parts.fit.grid) == 2 else (1, 1)
    tiles: list[dict[str, str | bool]] = []
    for image, token in chosen:
        patch = token - parts.fit.prefix_tokens if token >= parts.fit.prefix_tokens else None
        uri = pictures.tile(image, patch, grid)
        if uri is not None:
            name = token_name(token, parts.fit.prefix_kinds, parts.fit.grid)
            what = f"{name} of {pictures.name(image)}"
            tiles.append({"src": uri, "alt": what, "framed": patch is not None})
    return tiles


def _effects(parts: LayerParts) -> dict[int, dict[str, Any]]:
    """Effects of whole clusters, live where they were measured."""
    found: dict[int, dict[str, Any]] = {}
    if parts.causal is not None:
        for effect in parts.causal.effects:
            found[effect.cluster_id] = {
                "ablation": effect.ablation_effect,
                "ablation_q": effect.ablation_qvalue,
            }
    if parts.intervention is not None:
        for record in parts.intervention.clusters:
            own = found.setdefault(record["cluster_id"], {})
            own["live"] = record.get("live_ablation")
    return found
