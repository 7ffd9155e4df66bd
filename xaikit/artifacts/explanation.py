"""The artefact of ``explain``: what matters for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.json_artifact import JsonArtifact
from xaikit.artifacts.results import EdgeEffect


@dataclass(kw_only=True)
class Explanation(JsonArtifact):
    """Clusters of one image and the edges that matter for it, tested on other views of it.

    Attributes
    ----------
    image : str
        The path or the id that was given; untrusted text.
    rank : str
        The ranking behind both orders.
    grid : [int, int]
        Rows and columns of the patch raster.
    prefix_kinds : list of str
        What each token before the patches is.
    layers : list of [int, int]
        Target and next layer of each layer, lowest first.
    labels : list of list of int
        Cluster of each token of the whole image, prefix tokens first, a list a layer.
    edges : list of Edge
        The image's own first edges, best first; they name their layers.
    common_edges : list of Edge
        The first edges of the common order that the image has entries of.
    effects : list of EdgeEffect
        The first of `edges` one by one on the test views, with `live_effect`, `live_pvalue` and
        `live_qvalue` against random edges of like cover.
    curves, random : list of dict
        As in ``intervene``, on the test views; `ranking` is ``own`` (ranked on the image's
        choosing views) or ``common`` (on the run's discovery images). Shares are of the entries
        of the test views, so that all are compared at equal cover.
    overlap : list of dict
        By `share`: the part of the own circuit's entries that the common one of equal cover also
        has (`shared`).
    full_effect : dict of str to float
        Mean change, by metric, when every logit of the edited layers is ablated.
    choosing, tested : list of str
        What the views are.
    common_images : int
        Discovery images behind the common order.
    classes : list of dict
        `name` and `probability` of the model's first classes for the whole image, where it has
        classes.
    objective : dict
    ablation, destination : str
    metrics : list of str
    """

    STAGE: ClassVar[str] = "explain"
    RECORDS: ClassVar[dict[str, type]] = {
        "edges": Edge,
        "common_edges": Edge,
        "effects": EdgeEffect,
    }

    image: str
    rank: str
    grid: list[int]
    prefix_kinds: list[str]
    layers: list[list[int]]
    labels: list[list[int]]
    edges: list[Edge]
    common_edges: list[Edge]
    effects: list[EdgeEffect]
    curves: list[dict[str, Any]]
    random: list[dict[str, Any]]
    overlap: list[dict[str, Any]] = field(default_factory=list)
    full_effect: dict[str, float] = field(default_factory=dict)
    choosing: list[str] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)
    common_images: int = 0
    classes: list[dict[str, Any]] = field(default_factory=list)
    objective: dict[str, Any] = field(default_factory=dict)
    ablation: str = "mean"
    destination: str = "cluster"
    metrics: list[str] = field(default_factory=list)
    classifier: str | None = None

    def full_of(self, record: Mapping[str, Any]) -> float:
        """What ablating every logit does in the metric of a curve or band."""
        return self.full_effect.get(record["metric"], 0.0)
