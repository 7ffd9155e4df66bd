"""`intervene`: what the model does when edges are edited in its own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit, Intervention, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError
from xaikit.interventions import (
    BAND_SHARES,
    MODES,
    SHARES,
    Live,
    LiveOptions,
    Order,
    Patch,
    Plan,
    check_shares,
    cover_share,
    edge_table,
    fractions_of,
    full_patch,
    order_edges,
    order_patch,
    set_patch,
)
from xaikit.interventions.matching import spread_evenly
from xaikit.interventions.metrics import COSINE, Classifier
from xaikit.interventions.nodes import (
    agreement,
    node_patches,
    node_records,
    present_clusters,
    spearman,
)
from xaikit.interventions.targets import EdgeTargets, circuit_keys, edge_targets
from xaikit.progress import Progress, silent
from xaikit.rankings import ranking
from xaikit.rankings.live import image_ids, live_scores, open_live
from xaikit.statistics.multiple import permutation_pvalues

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

DEFAULT_RANKINGS = ("reach", "attribution", "energy", "weight")


@dataclass(frozen=True, kw_only=True)
class InterveneOptions(LiveOptions):
    """Options of an intervention, beside those of running the model.

    Attributes
    ----------
    rankings : sequence of str
        Whose curves to measure; the first one names the edges to test where there is no circuit.
    modes : sequence of str
        ``remove``, ``keep`` or both.
    shares, band_shares : sequence of float
        Shares of the logit entries at which curves, and random sets, are measured.
    draws : int
        Random edge sets behind each band.
    max_images : int, optional
        At most so many images to test on, spread evenly.
    edges, edge_draws : int
        Single edges to test, and random edges that each is compared with.
    nodes : bool
        Ablate and inject whole clusters as well.
    """

    rankings: Sequence[str] = DEFAULT_RANKINGS
    modes: Sequence[str] = MODES
    shares: Sequence[float] = SHARES
    band_shares: Sequence[float] = BAND_SHARES
    draws: int = 20
    max_images: int | None = 128
    edges: int = 20
    edge_draws: int = 39
    nodes: bool = True

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
    held = open_live(tower, source, features, fit, ids, tested, o, progress, classifier)
    scores = live_scores(
        o.rankings, tower, source, features, fit, ids=ids, options=o, progress=progress
    )
    orders = [
        order_edges(key, scores[key], held.counts, held.destination, fit.support)
        for key in o.rankings
    ]
    edges = edge_targets(
        held, fit, circuit, target, orders[0], count=o.edges, draws=o.edge_draws, seed=o.seed
    )
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


class _Run:
    """One pass over the test images, and the artefact's fields from what it measures."""

    def __init__(
        self,
        live: Live,
        orders: list[Order],
        edges: EdgeTargets,
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
        keys = circuit_keys(circuit) if circuit else []
        self.table = edge_table(keys, live.shape) if keys else None

    def patches(self) -> dict[str, list[Patch]]:
        """All that is measured, by purpose."""
        live = self.live
        found = {"full": [full_patch()], "curves": self.plan.patches(live)}
        found["edges"] = self.edges.patches(live)
        found["nodes"] = node_patches(live, self.clusters) if self.clusters else []
        found["circuit"] = []
        if self.table is not None:
            share = cover_share(self.table, live.counts)
            random = self.plan.random_orders(live)
            found["circuit"] = [
                set_patch(self.table, live.destination),
                set_patch(self.table, live.destination, keep=True),
                *(order_patch(order, [share]) for order in random),
            ]
        return found

    def measure(self, progress: Progress) -> dict[str, Any]:
        """Run everything once and put it into the artefact's fields."""
        patches = self.patches()
        flat = [patch for group in patches.values() for patch in group]
        measured = iter(self.live.measure(flat, progress))
        found = {name: [next(measured) for _ in group] for name, group in patches.items()}
        full = {metric: float(values.mean()) for metric, values in found["full"][0].items()}
        curves, bands = self.plan.records(self.live, found["curves"], full)
        effects = self.edges.measured(found["edges"])
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
