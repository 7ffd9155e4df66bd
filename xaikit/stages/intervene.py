"""`intervene`: what the model does when edges are edited in its own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit, EdgeEffect, Intervention, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError
from xaikit.interventions import (
    BAND_SHARES,
    MODES,
    SHARES,
    Live,
    Order,
    Plan,
    Probe,
    check_shares,
    cover_share,
    edge_table,
    fractions_of,
    full_probe,
    order_edges,
    order_probe,
    set_probe,
)
from xaikit.interventions.edges import EdgeComparison, EdgeKey, compare_edges
from xaikit.interventions.metrics import COSINE, Classifier
from xaikit.interventions.nodes import (
    agreement,
    node_probes,
    node_records,
    present_clusters,
    spearman,
)
from xaikit.progress import Progress, silent
from xaikit.rankings import ranking, score
from xaikit.statistics.multiple import permutation_pvalues
from xaikit.statistics.sinks import destination_kinds

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

DEFAULT_RANKINGS = ("reach", "attribution", "energy", "weight")


@dataclass(frozen=True, kw_only=True)
class InterveneOptions:
    """Options of an intervention.

    Attributes
    ----------
    rankings : sequence of str
        Whose curves to measure; the first one names the edges to test where there is no circuit.
    ablation : str
        ``mean``, ``resample``, ``zero`` or ``knockout`` (see `xaikit.interventions.ablate`).
    modes : sequence of str
        ``remove``, ``keep`` or both.
    shares, band_shares : sequence of float
        Shares of the logit entries at which curves, and random sets, are measured.
    draws : int
        Random edge sets behind each band.
    max_images : int, optional
        At most so many images to test on, spread evenly.
    score_images : int, optional
        At most so many discovery images to score rankings on that run the model.
    edges, edge_draws : int
        Single edges to test, and random edges that each is compared with.
    nodes : bool
        Ablate and inject whole clusters as well.
    ig_steps, batch_size, seed : int
    workers : int, optional
    """

    rankings: Sequence[str] = DEFAULT_RANKINGS
    ablation: str = "mean"
    modes: Sequence[str] = MODES
    shares: Sequence[float] = SHARES
    band_shares: Sequence[float] = BAND_SHARES
    draws: int = 20
    max_images: int | None = 128
    score_images: int | None = 256
    edges: int = 20
    edge_draws: int = 39
    nodes: bool = True
    ig_steps: int = 5
    batch_size: int = 32
    seed: int = 0
    workers: int | None = None

    def checked(self) -> InterveneOptions:
        """The options with shares in order.

        Raises
        ------
        UsageError
            Naming the option that is out of range.
        """
        for key in self.rankings:
            ranking(key)
        if not self.rankings:
            raise UsageError("--rank: expected at least one ranking")
        for mode in self.modes:
            if mode not in MODES:
                raise UsageError(f"--mode {mode}: expected remove, keep or both")
        least: list[tuple[str, int | None, int]] = [
            ("--draws", self.draws, 0),
            ("--edges", self.edges, 0),
            ("--edge-draws", self.edge_draws, 1),
            ("--max-images", self.max_images, 1),
            ("--score-images", self.score_images, 1),
        ]
        for name, value, low in least:
            if value is not None and value < low:
                raise UsageError(f"{name} {value}: expected {low} or more")
        shares = check_shares(self.shares)
        bands = check_shares(self.band_shares)[:-1]
        return replace(self, shares=shares, band_shares=bands)

    def record(self) -> dict[str, Any]:
        """The options as the artefact keeps them."""
        found = asdict(self)
        for name in ("batch_size", "workers"):
            found.pop(name)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


@dataclass(kw_only=True)
class _Edges:
    """The circuit's edges, and what is measured of them."""

    keys: list[EdgeKey]
    effects: list[EdgeEffect]
    comparison: EdgeComparison | None = None
    probes: list[Probe] = field(default_factory=list)


def intervene(
    tower: Tower,
    source: ImageSource,
    features: Features,
    fit: Fit,
    *,
    trace: Trace | None = None,
    circuit: Circuit | None = None,
    target: TargetCausal | None = None,
    classifier: Classifier | None = None,
    options: InterveneOptions | None = None,
    features_file: str = "",
    fit_file: str = "",
    circuit_file: str = "",
    progress: Progress = silent,
) -> Intervention:
    """Measure rankings, single edges and whole clusters in the real forward pass.

    Rankings are scored on the discovery images and everything is measured on the held-out ones;
    without a holdout both are the same images, and the artefact says so (`heldout`).

    Parameters
    ----------
    tower : Tower
        The model of the trace.
    source : ImageSource
        Holds the traced images, by id.
    features, fit : Features, Fit
    trace : Trace, optional
        For the ids of the images; without it the source must hold exactly the traced images.
    circuit : Circuit, optional
        Also measured as one set, against random sets of the same cover.
    target : TargetCausal, optional
        Whose edges are tested live; by default the circuit's first, else the first ranking's.
    classifier : Classifier, optional
        For KL divergence, margin and accuracy beside ``1 − cos``.
    options : InterveneOptions, optional

    Returns
    -------
    Intervention

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is out of range.
    """
    o = (options or InterveneOptions()).checked()
    require_parent(fit, "features", features, child_name="fit")
    for name, part in (("circuit", circuit), ("target-causal", target)):
        if part is not None and part.provenance.parents.get("fit") != fit.identity:
            raise UsageError(f"the {name} file was not made from this fit: make it again")
    ids = image_ids(source, features, trace)
    everything = list(range(len(ids)))
    tested = spread_evenly(features.test_images or everything, o.max_images)
    scored = spread_evenly(features.discovery or everything, o.score_images)
    held = _live(tower, source, features, fit, ids, tested, o, progress, classifier)
    found = _live(tower, source, features, fit, ids, scored, o, progress, None)
    scores = {key: score(key, fit, found) for key in o.rankings}
    orders = [
        order_edges(key, scores[key], held.counts, held.destination, fit.support)
        for key in o.rankings
    ]
    edges = _edges(held, fit, circuit, target, orders[0], o)
    run = _Run(held, orders, edges, circuit, o)
    return Intervention(
        provenance=fit.provenance.child(o.record(), fit=fit.identity),
        **run.measure(progress),
        destination=fit.destination,
        ablation=o.ablation,
        metrics=list(held.metrics),
        classifier=classifier.name if classifier else None,
        num_images=len(held.images),
        heldout=bool(features.heldout),
        features_file=features_file,
        fit_file=fit_file,
        circuit_file=circuit_file,
    ).identify()


def image_ids(source: ImageSource, features: Features, trace: Trace | None) -> list[str]:
    """Ids of the images behind the features' labels.

    Raises
    ------
    UsageError
        If the trace is another, or the source does not hold exactly the traced images.
    """
    if trace is not None:
        require_parent(features, "trace", trace, child_name="features")
        return list(trace.images)
    ids = list(source.ids)[: len(features.labels)]
    if fingerprint(ids) != features.provenance.origin.images_fingerprint:
        raise UsageError(
            "these are not the images that were traced: pass the same ones, or --trace, which "
            "names those that were used"
        )
    return ids


def _live(
    tower: Tower,
    source: ImageSource,
    features: Features,
    fit: Fit,
    ids: Sequence[str],
    images: Sequence[int],
    options: InterveneOptions,
    progress: Progress,
    classifier: Classifier | None,
) -> Live:
    return Live(
        tower,
        source,
        features,
        fit,
        ids=ids,
        images=images,
        batch_size=options.batch_size,
        ablation=options.ablation,
        classifier=classifier,
        ig_steps=options.ig_steps,
        workers=options.workers,
        seed=options.seed,
        progress=progress,
    )


def spread_evenly(images: Sequence[int], most: int | None) -> list[int]:
    """At most `most` of the images, evenly spaced, so that sorted folders are all seen."""
    ordered = sorted(images)
    if most is None or len(ordered) <= most:
        return ordered
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places]


def _edges(
    live: Live,
    fit: Fit,
    circuit: Circuit | None,
    target: TargetCausal | None,
    order: Order,
    options: InterveneOptions,
) -> _Edges:
    effects = list(target.effects[: options.edges]) if target is not None else []
    if target is None:
        keys = _circuit_keys(circuit)[: options.edges] if circuit else []
        keys = keys or _first_edges(order, options.edges)
        effects = [_bare_effect(fit, key) for key in keys]
    keys = [_key(effect) for effect in effects]
    if not keys:
        return _Edges(keys=[], effects=[])
    comparison = compare_edges(live, keys, options.edge_draws, options.seed)
    return _Edges(keys=keys, effects=effects, comparison=comparison, probes=comparison.probes(live))


def _first_edges(order: Order, count: int) -> list[EdgeKey]:
    places = order.positions.reshape(-1).argsort()[:count].tolist()
    _, heads, width = order.positions.shape
    return [(p // (heads * width), p // width % heads, p % width) for p in places]


def _circuit_keys(circuit: Circuit) -> list[EdgeKey]:
    return [(edge.cluster_id, edge.head, edge.destination) for edge in circuit.paths]


def _key(effect: EdgeEffect) -> EdgeKey:
    goal = effect.dst_token if effect.dst_token is not None else effect.dst_cluster
    assert goal is not None
    return effect.cluster_id, effect.head, goal


def _bare_effect(fit: Fit, key: EdgeKey) -> EdgeEffect:
    cluster, head, goal = key
    ends_at_cluster = fit.destination == "cluster"
    return EdgeEffect(
        cluster_id=cluster,
        head=head,
        dst_token=None if ends_at_cluster else goal,
        dst_cluster=goal if ends_at_cluster else None,
        support=int(fit.support[cluster, goal]),
        edge_effect=abs(float(fit.prototypes[key])),
        edge_pvalue=float(fit.edge_pvalues[key]),
        alignment_gain=None,
        alignment_pvalue=None,
        qvalue=float(fit.edge_qvalues[key]),
        dst_kind=destination_kinds(fit)[goal],
    )


class _Run:
    """One pass over the test images, and the artefact's fields from what it measures."""

    def __init__(
        self,
        live: Live,
        orders: list[Order],
        edges: _Edges,
        circuit: Circuit | None,
        options: InterveneOptions,
    ) -> None:
        self.live, self.edges, self.options = live, edges, options
        self.plan = Plan(
            orders=orders,
            modes=options.modes,
            shares=options.shares,
            band_shares=options.band_shares,
            draws=options.draws,
            seed=options.seed,
        )
        self.clusters = present_clusters(live) if options.nodes else []
        keys = _circuit_keys(circuit) if circuit else []
        self.table = edge_table(keys, live.shape) if keys else None

    def probes(self) -> dict[str, list[Probe]]:
        """All that is measured, by purpose."""
        live = self.live
        found = {"full": [full_probe()], "curves": self.plan.probes(live)}
        found["edges"] = self.edges.probes
        found["nodes"] = node_probes(live, self.clusters) if self.clusters else []
        found["circuit"] = []
        if self.table is not None:
            share = cover_share(self.table, live.counts)
            random = self.plan.random_orders(live)
            found["circuit"] = [
                set_probe(self.table, live.destination),
                set_probe(self.table, live.destination, keep=True),
                *(order_probe(order, [share]) for order in random),
            ]
        return found

    def measure(self, progress: Progress) -> dict[str, Any]:
        """Run everything once and put it into the artefact's fields."""
        probes = self.probes()
        flat = [probe for group in probes.values() for probe in group]
        measured = iter(self.live.measure(flat, progress))
        found = {name: [next(measured) for _ in group] for name, group in probes.items()}
        full = {metric: float(values.mean()) for metric, values in found["full"][0].items()}
        curves, bands = self.plan.records(self.live, found["curves"], full)
        effects = self._effects(found["edges"])
        nodes = node_records(self.live, self.clusters, found["nodes"]) if self.clusters else []
        agreeing = agreement(nodes)
        agreeing["edges"] = spearman(
            [effect.edge_effect for effect in effects],
            [effect.live_effect or 0.0 for effect in effects],
        )
        return {
            "full_effect": full,
            "curves": curves,
            "random": bands,
            "effects": effects,
            "clusters": nodes,
            "agreement": agreeing,
            "completeness": self._completeness(found["circuit"], full),
        }

    def _effects(self, measured: list[dict[str, Tensor]]) -> list[EdgeEffect]:
        if self.edges.comparison is None:
            return []
        columns = self.edges.comparison.results(measured)
        return [
            replace(effect, live_effect=live, live_pvalue=p, live_qvalue=q)
            for effect, live, p, q in zip(self.edges.effects, *columns, strict=True)
        ]

    def _completeness(
        self, measured: list[dict[str, Tensor]], full: dict[str, float]
    ) -> dict[str, Any]:
        """What a circuit alone breaks and holds, as shares of the full effect."""
        if self.table is None:
            return {}
        removed, kept, *random = [float(found[COSINE].mean()) for found in measured]
        whole = full[COSINE]
        shares = fractions_of([removed, kept, *random], whole)
        drawn = torch.tensor(shares[2:], dtype=torch.float64)
        observed = torch.tensor(shares[:1], dtype=torch.float64)
        return {
            "edges": int(self.table.sum()),
            "share": cover_share(self.table, self.live.counts),
            "removed": shares[0],
            "kept": shares[1],
            "completeness": shares[0],
            "faithfulness": 1.0 - shares[1] if whole else 0.0,
            "random_mean": float(drawn.mean()) if len(drawn) else None,
            "random_high": float(drawn.max()) if len(drawn) else None,
            "pvalue": float(permutation_pvalues(observed, drawn[:, None])[0]),
        }
