"""`graph`: clusters of several layers, and the heads and tokens that lead from one to another.

The graph is node-link JSON, which ``networkx.node_link_graph(data, edges="edges")`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.file_names import CIRCUIT, FEATURES, GRAPH, INTERVENE
from xaikit.artifacts.files import FORMAT_VERSION, write_json
from xaikit.artifacts.graph import Graph
from xaikit.artifacts.options import option, resolve
from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit, Intervention
from xaikit.artifacts.run_record import fits_of, read_beside, read_together, run_folders
from xaikit.artifacts.tensors import Features
from xaikit.errors import UsageError
from xaikit.statistics.agreement import joint_counts
from xaikit.version import xaikit_version

if TYPE_CHECKING:
    from xaikit.artifacts.edges import Edge

ENDS = ("source", "target")


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """What makes a link.

    Attributes
    ----------
    min_share : float
        Least share of a cluster's tokens in a ``flow``.
    paths : bool
        Only the layers that have edges, the clusters that these start or end at, and the flows
        between those.
    """

    min_share: float = option(
        0.1, "Least share of a cluster's tokens that makes a link.", least=0.0, most=1.0
    )
    paths: bool = option(
        False, "Leave out layers without edges, and clusters that none starts or ends at."
    )


@dataclass(frozen=True, kw_only=True)
class GraphLayer:
    """A layer's part of the graph.

    Attributes
    ----------
    features : Features
    circuit : Circuit
        With cluster destinations.
    intervention : Intervention, optional
        Whose single edges say what the live model does without them.
    """

    features: Features
    circuit: Circuit
    intervention: Intervention | None = None

    def live_effect(self, edge: Edge) -> float | None:
        """What removing an edge does to the live model, where it was measured."""
        effects = self.intervention.effects if self.intervention else []
        for effect in effects:
            if effect.key == edge.key and effect.layer in (None, self.features.layer):
                return effect.live_effect
        return None


def graph(
    layers: Sequence[GraphLayer],
    options: GraphOptions | None = None,
    *,
    out: str | Path | None = None,
    **given: Any,
) -> Graph:
    """Join the clusters and circuits of several layers into one directed multigraph.

    Nodes are ``(layer, cluster)``, of clusters that hold tokens. Links of kind ``head`` are the
    circuits' edges: in the attention after `layer`, head `head` lets the queries of tokens of
    cluster `k` (source) read from the keys of tokens of cluster `k'` (target). Links of kind
    ``flow`` lead from a cluster to those that its tokens are in, one target layer later, with the
    share of its tokens.

    Parameters
    ----------
    layers : sequence of GraphLayer
        Of the same model and images.
    options : GraphOptions, optional
    out : path, optional
        Where to write the graph.
    **given
        Fields of `GraphOptions`, in place of or beside the record.

    Returns
    -------
    Graph
        Node-link data: ``directed``, ``multigraph``, ``graph``, ``nodes``, ``edges``.

    Raises
    ------
    UsageError
        Where there are fewer than two layers, destinations are tokens, or the layers are not of
        the same model and images.
    """
    o = resolve(GraphOptions, options, given)
    ordered = sorted(layers, key=lambda each: each.features.layer)
    _check(ordered)
    if o.paths:
        ordered = [each for each in ordered if each.circuit.paths] or ordered
    nodes = [node for each in ordered for node in _nodes(each.features)]
    edges = [edge for each in ordered for edge in _heads(each)]
    for lower, upper in pairwise(ordered):
        edges += _flows(lower.features, upper.features, o.min_share)
    if o.paths:
        ends = {edge[end] for edge in edges if edge["kind"] == "head" for end in ENDS}
        nodes = [node for node in nodes if node["id"] in ends]
        edges = [edge for edge in edges if all(edge[end] in ends for end in ENDS)]
    origin = ordered[0].features.provenance.origin
    data: dict[str, Any] = {
        "stage": "graph",
        "format_version": FORMAT_VERSION,
        "xaikit_version": xaikit_version(),
        "directed": True,
        "multigraph": True,
        "graph": {
            "model": origin.model,
            "pretrained": origin.pretrained,
            "weights_fingerprint": origin.weights_fingerprint,
            "images_fingerprint": origin.images_fingerprint,
            "layers": [each.features.layer for each in ordered],
            "min_share": o.min_share,
            "circuits": [each.circuit.identity for each in ordered],
            **_objective(ordered),
        },
        "nodes": nodes,
        "edges": edges,
    }
    if out is not None:
        write_json(out, data)
    return Graph(data)


def graph_of_folder(
    out_dir: str | Path, options: GraphOptions | None = None, **given: Any
) -> tuple[Path, Graph]:
    """Write ``graph.json`` of what `run_all` left in a folder; return its path and content.

    It shows the paths of the circuit of all layers together; without one at the folder's root
    each layer's own circuit is joined.

    Raises
    ------
    UsageError
        Where there are no layers to join, or `min_share` is no share.
    """
    o = resolve(GraphOptions, options, given)
    root = Path(out_dir)
    folders = run_folders(root)
    if len(folders) < 2:
        raise UsageError(
            f"{root} has {len(folders)} layer_<l> folders; a graph joins two or more: run "
            "`xaikit run-all --target-layer all --destination cluster` first"
        )
    features = [Features.load(folder / FEATURES) for folder in folders]
    fits = fits_of(folders)
    for folder, own in zip(folders, features, strict=True):
        if folder in fits:
            require_parent(fits[folder], "features", own, child_name="fit")
    path, whole = root / GRAPH, root / CIRCUIT
    found = Circuit.load(whole) if whole.exists() else None
    # One without layers is of a single one: an earlier run left it.
    if found is not None and found.layers:
        if [list(pair) for pair in found.layers] != [[f.layer, f.next_layer] for f in features]:
            raise UsageError(f"{whole} is of other layers than the run: run `xaikit run-all` again")
        if read_together(Circuit.load, whole, list(fits.values())) is None:
            raise UsageError(f"{whole} is of other fits than the run's: run `xaikit run-all` again")
        circuits, o = [of_layer(found, each) for each in features], replace(o, paths=True)
        together = read_together(Intervention.load, root / INTERVENE, list(fits.values()))
        live = [together] * len(folders)
    else:
        circuits = [Circuit.load(folder / CIRCUIT) for folder in folders]
        live = [read_beside(Intervention.load, at / INTERVENE, fits.get(at)) for at in folders]
    layers = [
        GraphLayer(features=f, circuit=c, intervention=i)
        for f, c, i in zip(features, circuits, live, strict=True)
    ]
    return path, graph(layers, o, out=path)


def of_layer(found: Circuit, features: Features) -> Circuit:
    """The edges of one layer of a circuit of several, as a circuit of that layer."""
    paths = [path for path in found.paths if path.layer == features.layer]
    return Circuit(
        provenance=features.provenance.child(
            found.provenance.options, features=features.identity, circuit=found.identity
        ),
        fit_file=found.fit_file,
        top_k=found.top_k,
        rank=found.rank,
        destination=found.destination,
        paths=paths,
        objective=found.objective,
    ).identify()


def _objective(layers: Sequence[GraphLayer]) -> dict[str, Any]:
    """What edges push for and against, where they have sides."""
    found = layers[0].circuit.objective
    directed = any(edge.side for each in layers for edge in each.circuit.paths)
    return {"objective": found} if directed else {}


def _check(layers: Sequence[GraphLayer]) -> None:
    if len(layers) < 2:
        raise UsageError("a graph joins two or more layers: pass `target_layer=3,6,9` or all")
    keys = {each.features.provenance.origin.key() for each in layers}
    if len(keys) > 1:
        raise UsageError("the layers are not of the same model and images; run run-all again")
    for each in layers:
        if each.circuit.provenance.parents.get("features") != each.features.identity:
            raise UsageError(
                f"the circuit of layer {each.circuit.layer} was not made from its features: "
                "run `xaikit fit` and `xaikit circuit` again"
            )
        if each.circuit.destination != "cluster":
            raise UsageError(
                f"layer {each.circuit.layer}'s circuit ends at tokens; a graph needs "
                "`destination=cluster`"
            )


def _name(layer: int, cluster: int) -> str:
    return f"{layer}.{cluster}"


def _nodes(features: Features) -> list[dict[str, Any]]:
    return [
        {
            "id": _name(features.layer, cluster),
            "layer": features.layer,
            "cluster": cluster,
            "size": size,
            "activation_rate": float(features.cluster_activation_rates[cluster]),
        }
        for cluster, size in enumerate(features.cluster_sizes.tolist())
        if size
    ]


def _heads(layer: GraphLayer) -> list[dict[str, Any]]:
    features, circuit = layer.features, layer.circuit
    return [
        {
            "source": _name(features.layer, edge.cluster_id),
            "target": _name(features.layer, edge.destination),
            "key": f"head {circuit.next_layer}.{edge.head}",
            "kind": "head",
            "attention_layer": circuit.next_layer,
            "head": edge.head,
            "weight": edge.weight,
            "contrast": edge.contrast,
            "zscore": edge.zscore,
            "qvalue": edge.qvalue,
            "testable": edge.testable,
            "live_effect": layer.live_effect(edge),
            "support": edge.support,
            "score": edge.score,
            **({} if edge.effect is None else {"effect": edge.effect, "side": edge.side}),
        }
        for edge in circuit.paths
    ]


def _flows(lower: Features, upper: Features, min_share: float) -> list[dict[str, Any]]:
    """Where the tokens of each cluster are in the next target layer."""
    joint = joint_counts(lower.labels, upper.labels, lower.num_clusters, upper.num_clusters)
    shares = joint.double() / joint.sum(1, keepdim=True).clamp(min=1)
    found = (shares >= min_share) & (joint > 0)
    return [
        {
            "source": _name(lower.layer, source),
            "target": _name(upper.layer, target),
            "key": "flow",
            "kind": "flow",
            "share": float(shares[source, target]),
            "tokens": int(joint[source, target]),
        }
        for source, target in found.nonzero().tolist()
    ]
