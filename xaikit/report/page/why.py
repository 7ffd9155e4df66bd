"""Why an edge: the directions in which a head's queries and keys meet, as patches.

The logits of a head over all tokens of some images, less the means of the queries and of the keys,
are ``q̃ k̃ᵀ``. Their singular vectors are found from small matrices alone: with ``q̃ = U_q R_q`` and
``k̃ = U_k R_k``, the singular value decomposition of ``R_q R_kᵀ``. Each singular value then says how
much of an edge's mean logit, over the pairs of tokens within an image, that direction carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.tokens import token_name
from xaikit.errors import XaikitError
from xaikit.images.pipeline import iter_batches
from xaikit.report.page.names import Halves
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import Pictures
from xaikit.statistics.totals import as_float64
from xaikit.towers import capture

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.towers import AttentionCall, Tower

IMAGES = 32
EDGES = 40
"""Edges explained, the first ones."""
SHOWN = 2
"""Directions of each edge."""
PATCHES = 4


@dataclass(frozen=True)
class Directions:
    """Singular vectors of a head: ``q̃ k̃ᵀ = query diag(values) keyᵀ``."""

    values: Float[Tensor, " direction"]
    query: Float[Tensor, "image token direction"]
    key: Float[Tensor, "image token direction"]


def directions(
    query: Float[Tensor, "image token dim"], key: Float[Tensor, "image token dim"]
) -> Directions:
    """Directions in which the (scaled) queries and the keys of a head meet, strongest first."""
    images, tokens, _ = query.shape
    parts = []
    for side in (query, key):
        rows = as_float64(side.reshape(images * tokens, -1))
        parts.append(torch.linalg.qr(rows - rows.mean(0)))
    (own, own_r), (other, other_r) = parts
    left, values, right = torch.linalg.svd(own_r @ other_r.T)
    return Directions(
        values=values,
        query=(own @ left).view(images, tokens, -1),
        key=(other @ right.T).view(images, tokens, -1),
    )


def carried(
    found: Directions,
    queries: Float[Tensor, "image token"],
    keys: Float[Tensor, "image token"],
) -> Float[Tensor, " direction"]:
    """Part of the mean logit of an edge that each direction carries.

    Parameters
    ----------
    found : Directions
    queries, keys : float ``[image, token]``
        1 for the tokens that are on that side of the edge, 0 elsewhere.
    """
    own = torch.einsum("bn,bnd->bd", as_float64(queries), found.query)
    other = torch.einsum("bn,bnd->bd", as_float64(keys), found.key)
    pairs = (queries.sum(1) * keys.sum(1)).sum().clamp(min=1)
    return found.values * (own * other).sum(0) / pairs


def add_why(
    run: RunParts, pictures: Pictures, tower: Tower, edges: Sequence[dict[str, Any]]
) -> list[dict[str, str]]:
    """Set ``why`` of the first edges; return the patches that they name, each once."""
    images = _usable(run, pictures)
    if not images:
        return []
    seen = _queries_and_keys(run, pictures, tower, images)
    layers = {parts.layer: parts for parts in run.layers}
    tiles = _Tiles(pictures, images)
    known: dict[tuple[int, int], Directions] = {}
    for edge in edges[:EDGES]:
        parts, place = layers[edge["layer"]], (edge["layer"], edge["head"])
        if place not in known:
            query, key = seen[parts.fit.next_layer]
            known[place] = directions(query[:, edge["head"]], key[:, edge["head"]])
        labels = parts.features.labels[images]
        edge["why"] = _why(known[place], edge, labels, parts, tiles)
    return tiles.made


def _usable(run: RunParts, pictures: Pictures) -> list[int]:
    wanted = Halves.of(run.layers[0]).choose
    step = max(1, len(wanted) // IMAGES)
    return [image for image in wanted[::step] if pictures.place(image) is not None][:IMAGES]


def _queries_and_keys(
    run: RunParts, pictures: Pictures, tower: Tower, images: list[int]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Scaled queries and keys ``[image, head, token, dim]`` by attention layer."""
    if pictures.source is None:
        raise XaikitError(pictures.reason)
    found: dict[int, list[tuple[Tensor, Tensor]]] = {p.fit.next_layer: [] for p in run.layers}

    def tap(layer: int) -> Any:
        def keep(call: AttentionCall) -> None:
            query = call.query.float() * call.scale
            found[layer].append((query.cpu(), call.key.float().cpu()))

        return keep

    places = [place for image in images if (place := pictures.place(image)) is not None]
    batches = iter_batches(
        pictures.source, pictures.preprocess, batch_size=8, indices=places, strict=True
    )
    for batch in batches:
        capture(tower, batch.pixels.to(tower.device), attention={at: tap(at) for at in found})
    return {
        layer: (torch.cat([q for q, _ in pairs]), torch.cat([k for _, k in pairs]))
        for layer, pairs in found.items()
    }


def _why(
    found: Directions,
    edge: dict[str, Any],
    labels: Int[Tensor, "image token"],
    parts: LayerParts,
    tiles: _Tiles,
) -> dict[str, Any] | None:
    queries = as_float64(labels == edge["cluster"])
    keys = torch.zeros_like(queries)
    if edge["target"] is None:
        keys[:, edge["token"]] = 1.0
    else:
        keys = as_float64(labels == edge["target"])
    if not ((queries.sum(1) > 0) & (keys.sum(1) > 0)).any():
        return None
    parts_of_it = carried(found, queries, keys)
    shown = []
    for at in parts_of_it.abs().argsort(descending=True)[:SHOWN].tolist():
        ends = {}
        for side, mask, vectors in (
            ("queries", queries, found.query[..., at]),
            ("keys", keys, found.key[..., at]),
        ):
            # A singular vector has no sign of its own: the edge's own tokens give it one.
            towards = 1.0 if float((mask * vectors).sum()) >= 0 else -1.0
            ends[side] = tiles.furthest(towards * vectors, parts)
        shown.append({"direction": at + 1, "part": float(parts_of_it[at]), **ends})
    return {"total": float(parts_of_it.sum()), "directions": shown}


class _Tiles:
    """Patches named by their places, each drawn once."""

    def __init__(self, pictures: Pictures, images: list[int]) -> None:
        self.pictures, self.images = pictures, images
        self.made: list[dict[str, str]] = []
        self._known: dict[tuple[int, int], int] = {}

    def furthest(self, vectors: Float[Tensor, "image token"], parts: LayerParts) -> list[int]:
        """The tokens that lie furthest along a direction, at most one an image."""
        best, tokens = vectors.max(1)
        order = best.argsort(descending=True)[:PATCHES].tolist()
        places = [self._tile(at, int(tokens[at]), parts) for at in order]
        return [place for place in places if place is not None]

    def _tile(self, at: int, token: int, parts: LayerParts) -> int | None:
        key = (at, token)
        if key not in self._known:
            grid, prefix = parts.fit.grid, parts.fit.prefix_tokens
            patch = token - prefix if token >= prefix else None
            image = self.images[at]
            uri = self.pictures.tile(image, patch, (grid[0], grid[1]))
            if uri is None:
                return None
            self._known[key] = len(self.made)
            name = token_name(token, parts.fit.prefix_kinds, parts.fit.grid)
            alt = f"{name} of {self.pictures.name(image)}"
            self.made.append({"src": uri, "alt": alt, "framed": "yes" if patch is not None else ""})
        return self._known[key]
