"""The graph of the page for print: which nodes and lines the first edges of a run make."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xaikit.report.circuit_graph import Link, Node, draw_circuit_graph
from xaikit.report.directions import direction
from xaikit.report.page.clusters import kind_of
from xaikit.report.page.edges import edge_rows
from xaikit.report.page.members import members
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import Pictures
from xaikit.text import printable

MORE, LESS = "attends more than the average row", "attends less than it"
EDGES = 24
"""Edges drawn: what a column of print has room for."""


@dataclass
class DrawnGraph:
    """What `xaikit.report.circuit_graph.draw_circuit_graph` draws of a run."""

    nodes: dict[str, Node] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    flows: dict[tuple[str, str], float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: RunParts, pictures: Pictures) -> DrawnGraph:
        """The first edges of a run, as the page's graph shows them."""
        rows = edge_rows(run)
        return _Builder(run, pictures, rows[:EDGES]).built(len(rows))

    def draw(self, out: Path, *, dpi: int) -> Path:
        """Draw it into a file."""
        parts = (self.nodes, self.links, self.columns, self.flows, self.words)
        return draw_circuit_graph(*parts, out, dpi=dpi)


class _Builder:
    def __init__(self, run: RunParts, pictures: Pictures, rows: list[dict[str, Any]]) -> None:
        self.run, self.pictures, self.rows = run, pictures, rows
        self.layers = {parts.layer: parts for parts in run.layers}
        # Each layer's edges end at clusters, and there are several: a column a layer.
        ends = {parts.fit.destination for parts in run.layers}
        self.one_column = len(run.layers) > 1 and ends == {"cluster"}
        used = {row["layer"] for row in rows}
        self.shown = [layer for layer in self.layers if layer in used]
        self.members = {layer: members(self.layers[layer]) for layer in self.shown}

    def built(self, edges: int) -> DrawnGraph:
        found = DrawnGraph(columns=self._titles(), words=self._words(edges))
        heads: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
        for row in self.rows:
            ends = self._key(row, "query"), self._key(row, "key")
            for role, key in zip(("query", "key"), ends, strict=True):
                if key not in found.nodes:
                    found.nodes[key] = self._node(row, role)
            against = row["side"] == "against" if row["side"] else row["contrast"] < 0
            heads.setdefault((*ends, against), []).append(row)
        top = max((abs(row["contrast"]) for row in self.rows), default=1.0) or 1.0
        for (query, key, against), together in heads.items():
            names = ", ".join(str(row["head"]) for row in together)
            strength = max(abs(row["contrast"]) for row in together) / top
            found.links.append(Link(query, key, names, strength, against))
        if self.one_column:
            found.flows = self._flows(found.nodes)
        return found

    def _titles(self) -> list[str]:
        if self.one_column:
            return [f"layer {layer}" for layer in self.shown]
        pairs = [
            (
                f"queries: clusters of layer {layer}",
                f"keys: attention of layer {self.layers[layer].fit.next_layer}",
            )
            for layer in self.shown
        ]
        return [title for pair in pairs for title in pair]

    def _words(self, edges: int) -> dict[str, str]:
        circuit = self.run.circuit or self.run.layers[0].circuit
        origin = self.run.layers[0].fit.provenance.origin
        ranked = f" by {circuit.rank}" if circuit is not None else ""
        directed = any(row["side"] for row in self.rows)
        return {
            "title": f"{printable(origin.model)}: first {len(self.rows)} of {edges} edges{ranked}",
            "for": f"pushes for {direction(circuit)}" if directed and circuit else MORE,
            "against": "pushes against it" if directed else LESS,
        }

    def _key(self, row: dict[str, Any], role: str) -> str:
        if role == "key" and row["targetId"] is None:
            return f"{row['layer']}:{row['token']}|key"
        name = row["source"] if role == "query" else row["targetId"]
        return name if self.one_column else f"{name}|{role}"

    def _node(self, row: dict[str, Any], role: str) -> Node:
        parts = self.layers[row["layer"]]
        place = self.shown.index(row["layer"])
        column = place if self.one_column else 2 * place + (role == "key")
        cluster = row["cluster"] if role == "query" else row["target"]
        if cluster is None:
            return Node(column, row["to"])
        sizes = parts.features.cluster_sizes
        share = int(sizes[cluster]) / max(int(sizes.sum()), 1)
        note = kind_of(parts, cluster) or f"{share:.0%} of the tokens"
        return Node(column, f"cluster {cluster}", note, self._picture(parts, cluster))

    def _picture(self, parts: LayerParts, cluster: int) -> np.ndarray | None:
        """The most central patch that can be shown."""
        grid, prefix = parts.fit.grid, parts.fit.prefix_tokens
        found = self.members[parts.layer][cluster]
        for image, token in [*found.central, *found.random]:
            if len(grid) != 2:
                break
            patch = token - prefix if token >= prefix else None
            cut = self.pictures.cut(image, patch, (grid[0], grid[1]))
            if cut is not None:
                return np.asarray(cut)
        return None

    def _flows(self, nodes: dict[str, Node]) -> dict[tuple[str, str], float]:
        edges = (self.run.graph or {}).get("edges", [])
        return {
            (edge["source"], edge["target"]): float(edge["share"])
            for edge in edges
            if edge.get("kind") == "flow" and {edge["source"], edge["target"]} <= nodes.keys()
        }
