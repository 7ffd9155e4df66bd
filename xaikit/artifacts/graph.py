"""The graph of a run: node-link data that also knows how to become a networkx graph."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.files import read_json
from xaikit.artifacts.schema import require_schema
from xaikit.errors import XaikitError

if TYPE_CHECKING:
    import networkx


class Graph(dict[str, Any]):
    """Node-link data: ``directed``, ``multigraph``, ``graph``, ``nodes`` and ``edges``."""

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Read from `path`.

        Raises
        ------
        UsageError
            Where the file is missing, damaged, or no graph.
        """
        found = read_json(path, "graph")
        require_schema(path, found, "graph")
        return cls(found)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The same as a `networkx.MultiDiGraph`.

        Raises
        ------
        XaikitError
            Where networkx is not installed.
        """
        try:
            # An extra: most users never need it.
            import networkx
        except ImportError:
            raise XaikitError("graphs need networkx: pip install 'xaikit[networkx]'") from None
        return networkx.node_link_graph(dict(self), edges="edges")

    def __repr__(self) -> str:
        nodes, edges = len(self.get("nodes", [])), len(self.get("edges", []))
        about = self.get("graph", {})
        layers = ", ".join(map(str, about.get("layers", [])))
        return f"Graph: {nodes} clusters, {edges} links, layers {layers} of {about.get('model')}"

    def _repr_html_(self) -> str:
        return f"<div>{escape(repr(self))}</div>"
